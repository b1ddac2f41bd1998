// `npm run format`: what eslint can mend, prettier over TypeScript, scripts and JSON, clang-format over C++.
import { spawnSync } from 'node:child_process';
import { llvmTool, llvmVersion, nativeFiles, root } from './commands.mjs';

const run = (program, parameters) => {
  const { status } = spawnSync(program, parameters, { stdio: 'inherit', cwd: root });
  if (status !== 0) process.exitCode = 1;
};

run(process.execPath, ['node_modules/eslint/bin/eslint.js', '--fix', '--quiet', '.']);
run(process.execPath, ['node_modules/prettier/bin/prettier.cjs', '--write', '--log-level', 'warn', '.']);
const clangFormat = llvmTool('clang-format');
if (clangFormat) {
  run(clangFormat, ['-i', ...nativeFiles()]);
} else {
  console.error(`clang-format ${llvmVersion} was not found: the C++ files stay as they are`);
  process.exitCode = 1;
}

// Builds a checkout: the addon (build/), then the TypeScript (dist/). `npm install` runs it as `prepare`; "lib" alone skips the addon.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function run(...words) {
  const { status } = spawnSync(process.execPath, words, { stdio: 'inherit', cwd: root });
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync(join(root, 'node_modules', 'typescript'))) {
  console.log('minigpt4: the development packages are left out, so nothing is built');
  process.exit(0);
}
if (process.argv[2] !== 'lib') run(join('scripts', 'cmake.mjs'));
rmSync(join(root, 'dist'), { recursive: true, force: true }); // what no source stands for any more would be packed
run(join('node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json');
const page = join('train', 'watch', 'page'); // what browsers read is not compiled
cpSync(join(root, 'lib', page), join(root, 'dist', page), { recursive: true });
const main = join(root, 'dist', 'cli', 'main.js');
if (existsSync(main)) chmodSync(main, 0o755);

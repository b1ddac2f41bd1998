// `npm run lint:native`: clang-tidy over the C++ sources, or over those whose path contains one of the words given.
import { availableParallelism } from 'node:os';
import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { llvmTool, llvmVersion, root, run } from './commands.mjs';

const folder = join(root, 'out', 'Release');
const database = join(folder, 'compile_commands.json');
const words = process.argv.slice(2);
const program = llvmTool('clang-tidy');

function fail(message) {
  console.error(message);
  process.exit(1);
}
if (!program) fail(`clang-tidy ${llvmVersion} was not found`);
if (!existsSync(database)) fail('nothing is built yet; run npm install first');

const files = JSON.parse(readFileSync(database, 'utf8'))
  .map((entry) => relative(root, entry.file))
  .filter(
    (file) =>
      file.startsWith('native') &&
      file.endsWith('.cpp') &&
      (words.length === 0 || words.some((word) => file.includes(word))),
  );
if (files.length === 0) fail(`no C++ file matches ${words.join(', ')}`);

let failed = 0;
const queue = [...files];
async function worker() {
  for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
    const { code, output } = await run(program, [
      '-p',
      folder,
      '--quiet',
      '--warnings-as-errors=*',
      '--extra-arg=-Wno-unknown-warning-option',
      file,
    ]);
    if (code === 0) continue;
    failed++;
    console.log(output.replaceAll(`${root}/`, ''));
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, worker));
console.log(`clang-tidy: ${files.length - failed} of ${files.length} files are clean`);
process.exitCode = failed === 0 ? 0 : 1;

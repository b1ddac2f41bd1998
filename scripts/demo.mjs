// `npm run demo`: the command line describes the picture that lies in the repository, with the embedded model.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join('dist', 'cli', 'main.js');
const picture = join('models', 'example.jpg');
if (!existsSync(join(root, main))) {
  console.error('minigpt4: nothing is built yet; run npm install first');
  process.exit(1);
}
console.log(`The embedded miniature model describes ${picture}:\n`);
const { status } = spawnSync(process.execPath, [main, 'describe', picture, '--temperature', '0'], {
  stdio: 'inherit',
  cwd: root,
});
process.exit(status ?? 1);

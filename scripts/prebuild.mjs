// Fills prebuilds/<platform>-<arch>/ with the stripped binary that npm users load. prebuildify calls scripts/cmake.mjs where it would
// call node-gyp, so neither Python nor Node's headers are needed.
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const cmake = join(root, 'scripts', 'cmake.mjs');
const prebuildify = createRequire(import.meta.url)('prebuildify');

prebuildify({ cwd: root, napi: true, strip: true, tagLibc: true, nodeGyp: cmake }, (error) => {
  if (error) {
    console.error(`prebuildify: ${error.message}`);
    process.exit(1);
  }
  // it takes the plug-in around Gloo along, which is for the machine that it was built on
  const prebuilds = join(root, 'prebuilds');
  for (const path of readdirSync(prebuilds, { recursive: true, encoding: 'utf8' }))
    if (path.endsWith('.so')) rmSync(join(prebuilds, path));
  // it moves the binary away from build/; the checkout wants its own back
  process.exit(spawnSync(process.execPath, [cmake], { stdio: 'inherit' }).status ?? 1);
});

// Fills prebuilds/<platform>-<arch>/ with the stripped binaries that npm users load: the addon and, where nvcc is found, the CUDA plug-in.
// prebuildify calls scripts/cmake.mjs where it would call node-gyp, so neither Python nor Node's headers are needed.
//   --release   the plug-in is for all architectures of a release; without nvcc (of Linux on x86-64) there is no release
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const cmake = join(root, 'scripts', 'cmake.mjs');
const prebuildify = createRequire(import.meta.url)('prebuildify');
const { values: options } = parseArgs({ options: { release: { type: 'boolean', default: false } } });
const plugin = 'libminigpt4_cuda.so';
if (options.release && process.platform === 'linux' && process.arch === 'x64')
  Object.assign(process.env, { MINIGPT4_CUDA: 'on', MINIGPT4_CUDA_ARCHITECTURES: 'release' });

prebuildify({ cwd: root, napi: true, strip: true, tagLibc: true, nodeGyp: cmake }, (error) => {
  if (error) {
    console.error(`prebuildify: ${error.message}`);
    process.exit(1);
  }
  // it takes all plug-ins along: the one around Gloo is for the machine that it was built on, the emulator for tests
  const prebuilds = join(root, 'prebuilds');
  let cuda = 'no CUDA plug-in: nvcc was not found, or MINIGPT4_CUDA is off';
  for (const path of readdirSync(prebuilds, { recursive: true, encoding: 'utf8' }))
    if (basename(path) === plugin) cuda = `${path}, ${(statSync(join(prebuilds, path)).size / 1e6).toFixed(1)} MB`;
    else if (path.endsWith('.so')) rmSync(join(prebuilds, path));
  console.log(cuda);
  // it moves the binary away from build/; the checkout wants its own back
  process.exit(spawnSync(process.execPath, [cmake], { stdio: 'inherit' }).status ?? 1);
});

// Fills gpu/kit/ (git-ignored) with what a machine with a GPU lacks when nothing can be installed there, for gpu/check.sh: Node, the
// addon, the CUDA plug-in, the kernels' tests, the benchmarks, the library's device tests as one file, and what the emulator says.
//   node gpu/kit.mjs                                         for --architecture 90, an H100's
//   node gpu/kit.mjs --package FOLDER --binaries FOLDER      only the package with the device tests, beside binaries that are there
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const kit = join(root, 'gpu', 'kit');
const build = join(root, 'out', 'gpu-kit');
const limit = 64 * 2 ** 20;
const require = createRequire(join(root, 'package.json'));
const { values: options } = parseArgs({
  options: {
    architecture: { type: 'string', default: '90' },
    package: { type: 'string' },
    binaries: { type: 'string' },
  },
});

function fail(sentence) {
  console.error(`gpu:kit: ${sentence}`);
  process.exit(1);
}

/** Runs a program of the checkout; its output, or the end of everything. */
function run(program, parameters, { quiet = false, cwd = root } = {}) {
  const { status, stdout, error } = spawnSync(program, parameters, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    stdio: ['ignore', quiet ? 'pipe' : 'inherit', 'inherit'],
  });
  if (error) fail(`${program} could not be started: ${error.message}`);
  if (status !== 0) fail(`${program} ${parameters.join(' ').slice(0, 200)} ended with status ${status}`);
  return stdout;
}
const has = (program) => spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined;
const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/**
 * A package of the library as its device tests see one: tests/device.test.mjs with all that it imports, and what finds the binaries in
 * build/Release. The fixtures stay in the checkout; check.sh makes a link to them.
 */
async function packageOfTests(folder, binaries) {
  const { build: bundle } = await import('esbuild');
  mkdirSync(join(folder, 'tests'), { recursive: true });
  const { metafile } = await bundle({
    absWorkingDir: root,
    entryPoints: [join('test', 'device.test.ts')],
    outfile: join(folder, 'tests', 'device.test.mjs'),
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    external: ['node-gyp-build', 'sharp'],
    // what is CommonJS inside asks for Node's own modules by require
    banner: {
      js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
    },
    metafile: true,
    logLevel: 'warning',
  });
  const asked = Object.values(metafile.outputs).flatMap((output) =>
    output.imports.filter(({ path, kind }) => path === 'sharp' && kind === 'import-statement'),
  );
  if (asked.length > 0) fail('test/device.test.ts imports sharp when it starts, which the other machine lacks');
  const finder = dirname(require.resolve('node-gyp-build/package.json'));
  cpSync(finder, join(folder, 'node_modules', 'node-gyp-build'), { recursive: true });
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'));
  if (binaries === undefined) return;
  mkdirSync(join(folder, 'build'), { recursive: true });
  symlinkSync(resolve(binaries), join(folder, 'build', 'Release'));
}

if (options.package !== undefined) {
  await packageOfTests(resolve(options.package), options.binaries);
  process.exit(0);
}

if (process.platform !== 'linux' || process.arch !== 'x64') fail('made for Linux on x86-64, as the other machine is');
for (const [program, what] of [
  [process.env.CUDACXX ?? 'nvcc', 'the compiler of the CUDA toolkit'],
  ['xz', 'of xz-utils, which compresses what is carried'],
  ['strip', 'of binutils'],
  ['cmake', '3.18 or newer'],
]) {
  if (!has(program)) fail(`${program} was not found (${what}): install it, and run npm run gpu:kit again`);
}
mkdirSync(kit, { recursive: true });

/** Node, stripped and compressed once for each version of it: that takes a minute. */
function packNode() {
  const [packed, stamp] = [join(kit, 'node.xz'), join(kit, 'node.json')];
  const size = statSync(process.execPath).size;
  const is = JSON.stringify({ node: process.version, size });
  if (existsSync(packed) && existsSync(stamp) && readFileSync(stamp, 'utf8') === is) return;
  console.log(`packing Node ${process.version}`);
  const stripped = join(build, 'node');
  run('strip', ['-o', stripped, process.execPath]);
  run('xz', ['-T1', '-9', '--force', '--keep', stripped]);
  renameSync(`${stripped}.xz`, packed);
  writeFileSync(stamp, is);
}

const programs = ['gpu_tests_cuda', 'ops_bench', 'llama_bench', 'conformance_cuda', 'counted_kernels_cuda'].map(
  (name) => `minigpt4_${name}`,
);
const ninja = !existsSync(join(build, 'CMakeCache.txt')) && has('ninja') ? ['-G', 'Ninja'] : [];
run('cmake', [
  ...['-S', root, '-B', build, ...ninja, '-DCMAKE_BUILD_TYPE=Release', `-DMINIGPT4_NODE=${process.execPath}`],
  ...['-DMINIGPT4_KIT=ON', '-DMINIGPT4_TESTS=ON', '-DMINIGPT4_CUDA=on'],
  `-DMINIGPT4_CUDA_ARCHITECTURES=${options.architecture}-real`,
]);
const parallel = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(availableParallelism());
run('cmake', [
  ...['--build', build, '--parallel', parallel, '--target', 'minigpt4', 'minigpt4_cuda', ...programs],
  ...['minigpt4_conformance_simt', 'minigpt4_counted_kernels_hooks'],
]);
packNode();

// what the emulator says
run(join(build, 'minigpt4_conformance_simt'), ['write', join(kit, 'conformance.txt')]);
writeFileSync(join(kit, 'counted.csv'), run(join(build, 'minigpt4_counted_kernels_hooks'), [], { quiet: true }));

// the programs, the package, and the headers that gpu/rebuild.sh compiles the addon with where these do not start
const staged = join(build, 'staged');
rmSync(staged, { recursive: true, force: true });
mkdirSync(join(staged, 'bin'), { recursive: true });
const release = join(staged, 'package', 'build', 'Release');
mkdirSync(release, { recursive: true });
for (const name of programs) run('strip', ['-o', join(staged, 'bin', name), join(build, name)]);
for (const name of ['minigpt4.node', 'libminigpt4_cuda.so'])
  run('strip', ['--strip-unneeded', '-o', join(release, name), join(build, 'package', 'build', 'Release', name)]);
await packageOfTests(join(staged, 'package'));
mkdirSync(join(staged, 'include'));
for (const folder of ['node-addon-api', join('node-api-headers', 'include')].map((name) =>
  join(root, 'node_modules', name),
))
  for (const file of readdirSync(folder))
    if (file.endsWith('.h')) copyFileSync(join(folder, file), join(staged, 'include', file));
const archive = join(kit, 'programs.tar');
run('tar', ['-c', '--owner=0', '--group=0', '-f', archive, '-C', staged, 'bin', 'package', 'include']);
run('xz', ['-T1', '-9', '--force', archive]);

const git = (...words) => spawnSync('git', words, { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28 }).stdout ?? '';
const carried = git('ls-files', '-z', '--cached', '--others', '--exclude-standard').split('\0').filter(Boolean);
const sizeOf = (path) => (existsSync(path) ? statSync(path).size : 0);
const tree = [...new Set(carried)].reduce((sum, path) => sum + sizeOf(join(root, path)), 0);
const sources = createHash('sha256');
for (const path of carried.filter((path) => /^(native|gpu|test\/gpu)\//.test(path)).sort())
  if (existsSync(join(root, path))) sources.update(path).update(readFileSync(join(root, path)));
writeFileSync(
  join(kit, 'kit.json'),
  JSON.stringify({
    commit: git('rev-parse', 'HEAD').trim(),
    changed: git('status', '--porcelain').trim() !== '',
    sources: sources.digest('hex').slice(0, 16),
    node: process.version,
    nvcc: /V([\d.]+)/.exec(run(process.env.CUDACXX ?? 'nvcc', ['--version'], { quiet: true }))?.[1] ?? 'unknown',
    architecture: options.architecture,
  }),
);
let size = 0;
for (const name of readdirSync(kit)) {
  size += sizeOf(join(kit, name));
  console.log(`  ${relative(root, join(kit, name)).padEnd(28)} ${megabytes(sizeOf(join(kit, name)))}`);
}
console.log(
  `kit ${megabytes(size)}, files of the checkout ${megabytes(tree)}: ${megabytes(size + tree)} of ${megabytes(limit)}`,
);
if (size + tree > limit) fail(`kit and checkout together have ${size + tree} bytes, expected ${limit} at most`);

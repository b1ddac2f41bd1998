// `npm test`: builds what the tests need, runs every check and ends with the line "N passed, N failed" (and skipped ones, if any).
//   --quick        leaves out the kernels, ARM's and AMX's levels, clang-tidy, the sanitizer build and the fuzz targets
//   --only STEP    only this step (may be repeated): native, gpu, kernels, arm, lib, amx, types, lint, tidy, sanitize, fuzz
//   --fuzz-seconds N  how long each fuzz target runs (5)
//   WORD...        of the steps `lib` and `amx` only test files whose name contains a word, of `native` tests whose name does
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { filesBelow, llvmTool, llvmVersion, nativeFiles, root, run } from './commands.mjs';

const steps = ['native', 'gpu', 'kernels', 'arm', 'lib', 'amx', 'types', 'lint', 'tidy', 'sanitize', 'fuzz'];
const slowSteps = ['kernels', 'arm', 'amx', 'tidy', 'sanitize', 'fuzz'];
const { values: options, positionals: words } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    'fuzz-seconds': { type: 'string', default: '5' },
  },
  allowPositionals: true,
});
const unknown = options.only.find((step) => !steps.includes(step));
if (unknown !== undefined) {
  console.error(`no step is called "${unknown}"; there are ${steps.join(', ')}`);
  process.exit(2);
}
const fuzzSeconds = Number(options['fuzz-seconds']);
if (!(fuzzSeconds > 0)) {
  console.error(`--fuzz-seconds: expected a positive number, found "${options['fuzz-seconds']}"`);
  process.exit(2);
}
const wanted = (step) =>
  options.only.length > 0 ? options.only.includes(step) : !(options.quick && slowSteps.includes(step));

const total = { passed: 0, failed: 0, skipped: 0 };

/** Adds a result and prints its line; of what failed, also everything it printed. */
function report(name, { passed = 0, failed = 0, skipped = 0, seconds, why, output = '' }) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  const counts = [`${passed} passed`, failed > 0 && `${failed} failed`, skipped > 0 && `${skipped} skipped`];
  const time = seconds === undefined ? '' : `, ${seconds.toFixed(1)} s`;
  console.log(
    `${failed > 0 ? 'FAIL' : 'ok  '}  ${name}: ${counts.filter(Boolean).join(', ')}${time}${why ? ` (${why})` : ''}`,
  );
  if (failed > 0) console.log(output.trimEnd().replace(/^/gm, '      '));
}

/** One program is one check: it passes when its exit code is 0. */
async function check(name, program, parameters, settings) {
  const result = await run(program, parameters, settings);
  const good = result.code === 0;
  const why = good || result.code !== null ? undefined : `killed by ${result.signal}`;
  report(name, { ...result, why, passed: good ? 1 : 0, failed: good ? 0 : 1 });
  return good;
}

/** A build is no check; that it failed is one. */
async function build(name, program, parameters) {
  const result = await run(program, parameters, { minutes: 30 });
  if (result.code === 0) console.log(`built ${name}, ${result.seconds.toFixed(1)} s`);
  else report(`build of ${name}`, { ...result, failed: 1 });
  return result.code === 0;
}

const node = (name, ...parameters) => check(name, process.execPath, parameters);
const withTests = ['-DMINIGPT4_TESTS=ON', '-DMINIGPT4_SIMT=plain'];
const parallel = ['--parallel', String(availableParallelism())];

/** What a new build folder is told if there is a Ninja. */
async function ninja(folder) {
  const fresh = !existsSync(join(root, folder, 'CMakeCache.txt'));
  return fresh && (await run('ninja', ['--version'])).code === 0 ? ['-G', 'Ninja'] : [];
}

async function types() {
  await node('types of lib/', 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.json', '--noEmit');
  await node('types of test/, bench/ and scripts/', 'node_modules/typescript/bin/tsc', '-p', 'tsconfig.test.json');
}

async function lint() {
  await node('eslint', 'node_modules/eslint/bin/eslint.js', '--max-warnings', '0', '.');
  await node('prettier', 'node_modules/prettier/bin/prettier.cjs', '--check', '--log-level', 'warn', '.');
  const clangFormat = llvmTool('clang-format');
  if (!clangFormat) return report('clang-format', { skipped: 1, why: `clang-format ${llvmVersion} is not installed` });
  const result = await run(clangFormat, ['--dry-run', ...nativeFiles()]);
  const files = new Set(
    [...result.output.matchAll(/^(\S+?):\d+:\d+: warning: .*-Wclang-format-violations/gm)].map((match) => match[1]),
  );
  const good = result.code === 0 && files.size === 0;
  const output = result.code === 0 ? `npm run format would change\n${[...files].join('\n')}` : result.output;
  report('clang-format', { ...result, passed: good ? 1 : 0, failed: good ? 0 : 1, output });
}

async function tidy() {
  if (llvmTool('clang-tidy')) await check('clang-tidy', process.execPath, ['scripts/tidy.mjs'], { minutes: 20 });
  else report('clang-tidy', { skipped: 1, why: `clang-tidy ${llvmVersion} is not installed` });
}

/** Runs the native tests of a build folder. */
async function nativeTests(name, folder, env, program = 'minigpt4_tests') {
  reportNative(name, await run(join(root, folder, program), words, { env, minutes: 20 }));
}

/** Takes the counts of native tests from their last line. `wrong`: what else is wrong with what they printed. */
function reportNative(name, result, wrong) {
  const counts = result.output
    .match(/(\d+) passed, (\d+) failed, (\d+) skipped\s*$/)
    ?.slice(1)
    .map(Number);
  let [passed, failed, skipped] = counts ?? [0, 1, 0];
  // a word that names no native test is meant for the other tests
  if (words.length > 0 && counts && passed + failed + skipped === 0) return;
  if ((result.code !== 0 || wrong) && failed === 0) failed = 1;
  report(name, {
    ...result,
    passed,
    failed,
    skipped,
    why: counts ? wrong : `ended early: ${result.signal ?? result.code}`,
  });
}

async function native() {
  // in the addon's own build folder: the tests run on the very objects that the addon is linked from
  const folder = join('out', 'Release');
  const built =
    (await build('configuration', 'cmake', ['-S', '.', '-B', folder, ...withTests])) &&
    (await build('native tests', 'cmake', ['--build', folder, '--target', 'minigpt4_tests', ...parallel]));
  if (built) await nativeTests('native tests', folder);
}

/** The GPU's kernels and what runs them here, every access checked; then all that a GPU is asked, asked of the emulator. */
async function gpu() {
  if (process.platform !== 'linux') return report('tests of kernels', { skipped: 1, why: 'the emulator is for Linux' });
  const folder = join('out', 'Release');
  const program = 'minigpt4_gpu_tests_hooks';
  const programs = ['gpu_tests_simt', 'ops_bench', 'llama_bench', 'conformance_simt', 'counted_kernels_hooks'];
  const targets = ['minigpt4_simt', program, ...programs.map((name) => `minigpt4_${name}`)];
  const built =
    (await build('configuration', 'cmake', ['-S', '.', '-B', folder, ...withTests])) &&
    (await build('tests of kernels', 'cmake', ['--build', folder, '--target', ...targets, ...parallel]));
  if (!built) return;
  await nativeTests('tests of kernels, on the emulator', folder, {}, program);
  if (words.length > 0) return;
  await check('gpu/check.sh, dry', 'bash', ['gpu/check.sh', join('out', 'gpu-check')], {
    env: { DRY: '1' },
    minutes: 12,
  });
}

/** What nvcc makes of the kernels: no spills, and registers as the table has them. */
async function kernels() {
  const result = await run(process.execPath, ['scripts/kernels.mjs'], { minutes: 30 });
  if (result.code === 77) return report('kernels for GPUs', { skipped: 1, why: 'nvcc was not found' });
  report('kernels for GPUs', { ...result, passed: result.code === 0 ? 1 : 0, failed: result.code === 0 ? 0 : 1 });
}

/** The native tests on 64-bit ARM, emulated: all where all levels are; some where fewer are, which shows that those get along without. */
async function arm() {
  const name = 'native tests for ARM';
  const missing = ['aarch64-linux-gnu-g++', 'qemu-aarch64'].filter(
    (program) => spawnSync(program, ['--version']).status !== 0,
  );
  if (missing.length > 0) return report(name, { skipped: 1, why: `${missing.join(' and ')}: not installed` });
  const folder = join('out', 'arm');
  const off = ['ADDON', 'CUDA', 'SIMT'].map((part) => `-DMINIGPT4_${part}=OFF`);
  const settings = [
    '-DCMAKE_TOOLCHAIN_FILE=scripts/aarch64.cmake',
    '-DMINIGPT4_TESTS=ON',
    ...off,
    ...(await ninja(folder)),
  ];
  const built =
    (await build('configuration for ARM', 'cmake', ['-S', '.', '-B', folder, ...settings])) &&
    (await build(name, 'cmake', ['--build', folder, '--target', 'minigpt4_tests', ...parallel]));
  if (!built) return;
  for (const { cpu, levels, only } of [
    { cpu: 'max', levels: 'scalar, neon, neon-i8mm', only: [] },
    { cpu: 'neoverse-n1', levels: 'scalar, neon', only: ['the scalar level', 'depend'] },
    { cpu: 'cortex-a57', levels: 'scalar', only: ['the scalar level', 'depend'] },
  ]) {
    if (words.length > 0 && only.length > 0) continue;
    const program = ['-L', '/usr/aarch64-linux-gnu', '-cpu', cpu, join(root, folder, 'minigpt4_tests')];
    const result = await run('qemu-aarch64', [...program, ...words, ...only], { minutes: 20 });
    const found = result.output.match(/^levels: (.*)$/m)?.[1];
    const wrong = found !== levels && words.length === 0 ? `levels: expected ${levels}, found ${found}` : undefined;
    reportNative(`${name}, ${cpu}: ${levels}`, result, wrong);
  }
}

/** Suites that a test file makes and never runs: uvu would pass over them in silence. */
function suitesNotRun(source) {
  const made = [...source.matchAll(/\b(?:const|let)\s+(\w+)\s*=\s*suite\s*[(<]/g)].map((match) => match[1]);
  if (/import\s*\{[^}]*\btest\b[^}]*\}\s*from\s*'uvu'/.test(source)) made.push('test');
  return made.filter((name) => !new RegExp(`\\b${name}\\.run\\(\\)`).test(source));
}

async function lib() {
  if (process.platform === 'linux') {
    // the device that the tests of a GPU's path compute on
    const folder = join('out', 'Release');
    const target = ['--build', folder, '--target', 'minigpt4_simt', ...parallel];
    if (!(await build('configuration', 'cmake', ['-S', '.', '-B', folder, ...withTests]))) return;
    if (!(await build('the emulated device', 'cmake', target))) return;
  }
  const files = libTestFiles();
  if (files.length === 0 && words.length === 0)
    report('test/*.test.ts', { failed: 1, output: 'there are no test files' });
  for (const file of files) await libTest(file);
}

/** Those that the words pick. */
function libTestFiles() {
  return filesBelow('test', /\.test\.ts$/).filter(
    (file) => words.length === 0 || words.some((word) => basename(file).includes(word)),
  );
}

/** Runs a file of uvu's tests. `where`: said behind its name. */
async function libTest(file, env = {}, where = '') {
  const result = await run(process.execPath, ['--import', 'tsx', file], { env });
  const count = (word) => Number(result.output.match(new RegExp(`^  ${word}: +(\\d+)$`, 'm'))?.[1] ?? 0);
  const [passed, skipped] = [count('Passed'), count('Skipped')];
  let failed = count('Total') - passed;
  let why = result.code === null ? `killed by ${result.signal}` : undefined;
  const forgotten = suitesNotRun(readFileSync(join(root, file), 'utf8'));
  if (forgotten.length > 0) why = `never run: ${forgotten.join(', ')}`;
  else if (passed + failed + skipped === 0) why ??= `no test was run, exit code ${result.code}`;
  if (failed === 0 && (why !== undefined || result.code !== 0)) failed = 1;
  report(`${file}${where}`, { ...result, passed, failed, skipped, why });
}

/**
 * What depends on how float weights are multiplied, at the level "amx" with its tile unit in plain C++ (test/native/amx_model.h): what a machine
 * that has the unit would find.
 */
async function amx() {
  const vectors = process.platform === 'linux' && /\bavx512_vnni\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));
  if (!vectors) return report("tests on AMX's model", { skipped: 1, why: 'its level has the vectors of AVX-512' });
  const folder = join('out', 'Release');
  const target = ['--build', folder, '--target', 'minigpt4_modelled', ...parallel];
  const built =
    (await build('configuration', 'cmake', ['-S', '.', '-B', folder, ...withTests])) &&
    (await build("the addon with AMX's model", 'cmake', target));
  if (!built) return;
  const env = { MINIGPT4_PREBUILD: join(root, folder, 'modelled'), MINIGPT4_CPU_LEVEL: 'amx-model-avx512' };
  const where = ", on AMX's model";
  // each must be there, unless words pick others; lookup.test.ts compares levels, too, but takes minutes on the model
  const sensitive = new Set(['layout.test.ts', 'together.test.ts', 'trainer.test.ts']);
  for (const file of libTestFiles()) {
    if (sensitive.delete(basename(file))) await libTest(file, env, where);
  }
  for (const name of words.length > 0 ? [] : sensitive)
    report(name + where, { failed: 1, why: 'there is no such file' });
  if (words.length > 0 && !words.some((word) => 'verify'.includes(word))) return;
  for (const fixture of ['tiny-llama2', 'tiny-gqa']) {
    for (const type of ['f32', 'f16', 'bf16', 'q4_0']) {
      const verify = ['dist/cli/main.js', 'verify', join('test', 'fixtures', fixture), '--type', type];
      await check(`verify ${fixture}, ${type}${where}`, process.execPath, verify, { env });
    }
  }
}

const sanitizeFolder = join('out', 'sanitize');
const sanitizeEnv = { ASAN_OPTIONS: 'detect_stack_use_after_return=1', UBSAN_OPTIONS: 'print_stacktrace=1' };

async function buildSanitized() {
  const settings = ['-DMINIGPT4_ADDON=OFF', '-DMINIGPT4_TESTS=ON', '-DMINIGPT4_SANITIZE=ON'];
  settings.push(...(await ninja(sanitizeFolder)));
  const targets = ['--target', 'minigpt4_tests', 'minigpt4_fuzz', ...parallel];
  return (
    (await build('configuration with sanitizers', 'cmake', ['-S', '.', '-B', sanitizeFolder, ...settings])) &&
    (await build('native tests with sanitizers', 'cmake', ['--build', sanitizeFolder, ...targets]))
  );
}

async function fuzz() {
  const targets = filesBelow(join('test', 'native', 'fuzz'), /_fuzz\.cpp$/).map((file) => basename(file, '.cpp'));
  for (const target of targets) {
    const seed = String(Date.now() % 1_000_000);
    const program = join(root, sanitizeFolder, 'fuzz', target);
    await check(`${target}, ${fuzzSeconds} s with seed ${seed}`, program, [String(fuzzSeconds), seed], {
      env: sanitizeEnv,
      minutes: 5 + fuzzSeconds / 60,
    });
  }
}

const started = performance.now();
if (wanted('native') || wanted('gpu') || wanted('lib') || wanted('amx')) {
  // what `npm install` built, brought up to date: seconds when nothing changed
  const built = await build('addon and lib', process.execPath, ['scripts/compile.mjs']);
  if (built && wanted('native')) await native();
  if (built && wanted('gpu')) await gpu();
  if (built && wanted('lib')) await lib();
  if (built && wanted('amx')) await amx();
}
if (wanted('kernels')) await kernels();
if (wanted('arm')) await arm();
if (wanted('types')) await types();
if (wanted('lint')) await lint();
if (wanted('tidy')) await tidy();
if (wanted('sanitize') || wanted('fuzz')) {
  const built = await buildSanitized();
  if (built && wanted('sanitize')) await nativeTests('native tests with sanitizers', sanitizeFolder, sanitizeEnv);
  if (built && wanted('fuzz')) await fuzz();
}

console.log(`\nall in ${((performance.now() - started) / 60_000).toFixed(1)} minutes`);
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;

#!/usr/bin/env node
// Builds the native addon with cmake-js: build/<config>/minigpt4.node from objects in out/<config>, a folder that node-gyp never empties.
// Called by `npm install` in a checkout, by binding.gyp, by prebuildify in node-gyp's place, and by hand: cmake.mjs [Release|Debug].
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const config = process.argv.slice(2).some((word) => /^(--)?debug$/i.test(word)) ? 'Debug' : 'Release';
const folder = join(root, 'out', config);
const oldest = [3, 18];

function fail(...lines) {
  console.error(['', ...lines, ''].join('\n'));
  process.exit(1);
}

/** The folder of a package that only a build needs, or undefined. */
function packageFolder(name) {
  try {
    return dirname(createRequire(join(root, 'package.json')).resolve(`${name}/package.json`));
  } catch {
    return undefined;
  }
}

const needed = ['cmake-js', 'node-addon-api', 'node-api-headers'];
if (!needed.every(packageFolder)) {
  fail(
    `minigpt4: there is no ready-made binary for ${process.platform}-${process.arch}, and what builds one is not installed.`,
    'With a C++20 compiler and cmake 3.18 or newer, these two commands build it in your project:',
    `  npm install --save-dev ${needed.join(' ')}`,
    '  node node_modules/minigpt4/scripts/cmake.mjs',
  );
}

const version = spawnSync('cmake', ['--version'], { encoding: 'utf8' }).stdout?.match(/version (\d+)\.(\d+)/);
if (!version)
  fail(
    'minigpt4: cmake was not found. Building needs cmake 3.18 or newer and a C++20 compiler (g++ 12, clang 15 or newer).',
  );
const [major, minor] = [Number(version[1]), Number(version[2])];
if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
  fail(`minigpt4: building needs cmake ${oldest.join('.')} or newer, found ${major}.${minor}.`);
}

/** A value of CMake's cache, or undefined. */
function cached(key) {
  const path = join(folder, 'CMakeCache.txt');
  if (!existsSync(path)) return undefined;
  return readFileSync(path, 'utf8').match(new RegExp(`^${key}:[A-Z]+=(.*)$`, 'm'))?.[1];
}
// a folder that was copied or moved here from elsewhere cannot be built on
const home = cached('CMAKE_HOME_DIRECTORY');
if (home !== undefined && home !== root) rmSync(folder, { recursive: true, force: true });
const generator = cached('CMAKE_GENERATOR');

const parallel = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(availableParallelism());
/** cmake-js's command for the build folder; ends everything where it fails. */
function cmakeJs(command, ...words) {
  const program = join(packageFolder('cmake-js'), 'bin', 'cmake-js');
  const folders = ['-d', root, '-O', folder, '-B', config];
  const parameters = [program, command, ...folders, ...words, ...(generator ? ['-G', generator] : [])];
  const { error, status } = spawnSync(process.execPath, parameters, { stdio: 'inherit', cwd: root });
  if (error) fail(`minigpt4: cmake-js could not be started: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}
// what the environment says counts each time, also for a folder that was configured otherwise
const said = ['MINIGPT4_CUDA', 'MINIGPT4_CUDA_ARCHITECTURES'].map(
  (name) => `--CD${name}=${process.env[name] ?? (name === 'MINIGPT4_CUDA' ? 'auto' : '')}`,
);
const settings = [`--CDMINIGPT4_NODE=${process.execPath}`, ...said];
cmakeJs('configure', ...settings);
cmakeJs('build', '-T', 'minigpt4', '-p', parallel, ...settings);

// Runs programs for the other scripts: output captured, a time limit, and the tools that must be of one version.
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout's folder. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * Runs one program in the checkout's folder. Resolves to its exit code (null: killed by `signal`), everything it printed, and seconds;
 * never rejects: a program that cannot be started has code 127.
 */
export function run(program, parameters, { env = {}, minutes = 10 } = {}) {
  const started = performance.now();
  return new Promise((resolve) => {
    let output = '';
    let timedOut = false;
    const child = spawn(program, parameters, {
      cwd: root,
      env: { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, minutes * 60_000);
    const finish = (code, signal) => {
      clearTimeout(timer);
      if (timedOut) output += `\nended after ${minutes} minutes, the time limit\n`;
      resolve({ code, signal, output, seconds: (performance.now() - started) / 1000 });
    };
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => {
      output += error.message;
      finish(127, null);
    });
    child.on('close', finish);
  });
}

/** Files below a folder of the checkout whose name matches, sorted, as paths from the checkout's folder. */
export function filesBelow(folder, pattern) {
  let entries;
  try {
    entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  } catch {
    return [];
  }
  return entries
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

/** Major version of LLVM's tools: another one formats differently and finds different things. */
export const llvmVersion = 19;

/** The name under which an LLVM tool of that version is installed, or undefined. */
export function llvmTool(name) {
  return [`${name}-${llvmVersion}`, name].find((program) =>
    new RegExp(`version ${llvmVersion}\\.`).test(spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout ?? ''),
  );
}

/** Every C++ file of ours. */
export const nativeFiles = () =>
  ['native', 'test/native', 'test/gpu', 'gpu'].flatMap((folder) => filesBelow(folder, /\.(cpp|h|cu)$/));

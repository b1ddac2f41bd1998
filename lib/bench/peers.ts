// Other programs that are measured beside ours. They are no dependencies: npm installs them into a folder of their own when they are asked for.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { homedir, platform } from 'node:os';
import { join } from 'node:path';
import { abortedError, MiniGptError, toMiniGptError } from '../errors.js';
import { makeFolders } from '../formats/make-folders.js';

/** The versions that figures are stated for. */
export const PEERS = { 'node-llama-cpp': '3.22.1', 'onnxruntime-node': '1.30.0' } as const;
export type PeerName = keyof typeof PEERS;

/** Of the user's folder one inside it, as a project that lies there is not ours to change; else where the system keeps what can be fetched again. */
export function peerFolderIn(folder: string | undefined): string {
  if (folder !== undefined) return join(folder, 'minigpt4-peers');
  const caches =
    process.env['XDG_CACHE_HOME'] || join(homedir(), ...(platform() === 'darwin' ? ['Library', 'Caches'] : ['.cache']));
  return join(caches, 'minigpt4', 'peers');
}

/** npm writes it when all else is in place: what was cut off is not in it. */
const INSTALLED = '.package-lock.json';

function installed(folder: string, name: PeerName): string | undefined {
  const modules = join(folder, 'node_modules');
  try {
    const { packages } = JSON.parse(readFileSync(join(modules, INSTALLED), 'utf8')) as {
      packages: Record<string, { version: string }>;
    };
    return existsSync(join(modules, name)) ? packages[`node_modules/${name}`]?.version : undefined;
  } catch {
    return undefined;
  }
}

/** npm's words on a failure are many; these say why. */
function reason(output: string): string {
  const lines = output.split('\n').filter((line) => /^npm (error|ERR!)/.test(line));
  const told = lines.find((line) => !/^npm (error|ERR!) (code|A complete log)/.test(line)) ?? lines[0];
  return told?.replace(/^npm (error|ERR!) /, '') ?? output.trim().split('\n').at(-1) ?? '';
}

/**
 * Brings `name` into `folder` unless it is there in its version; gives the version. Install scripts stay off: both packages bring what runs
 * on a CPU. Errors: ERR_NETWORK with npm's reason, ERR_FILE_NOT_FOUND (there is no npm), ERR_FILE_READ (the folder), ERR_ABORTED.
 */
export async function installPeer(folder: string, name: PeerName, signal: AbortSignal): Promise<string> {
  const wanted = PEERS[name];
  if (installed(folder, name) === wanted) return wanted;
  await makeFolders(folder);
  // npm takes what a cut-off installation left for whole packages
  const modules = join(folder, 'node_modules');
  await rm(existsSync(join(modules, INSTALLED)) ? join(modules, name) : modules, { recursive: true, force: true });
  // a project of its own, or npm would look for one above
  const manifest = join(folder, 'package.json');
  if (!existsSync(manifest)) await writeFile(manifest, '{ "private": true }\n');
  const words = ['install', '--ignore-scripts', '--no-audit', '--no-fund', `${name}@${wanted}`];
  const own = process.env['npm_execpath'];
  const [program, first] = own !== undefined && /npm-cli\.js$/.test(own) ? [process.execPath, [own]] : ['npm', []];
  const child = spawn(program, [...first, ...words], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    signal,
  });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text));
  let broken: Error | undefined;
  child.on('error', (error) => (broken = error));
  const code = await new Promise<number | null>((done) => child.on('close', done));
  if (signal.aborted) throw abortedError(signal);
  const failed = `${name} ${wanted} could not be installed`;
  if (broken) {
    const message = `${failed}: npm, which comes with Node.js, could not be started: ${broken.message}`;
    throw new MiniGptError(toMiniGptError(broken).code, message, { cause: broken });
  }
  if (code !== 0) throw new MiniGptError('ERR_NETWORK', `${failed}: ${reason(output) || `npm ended with ${code}`}`);
  const found = installed(folder, name);
  if (found !== wanted) throw new MiniGptError('ERR_INTERNAL', `${failed}: found ${found ?? 'nothing'} afterwards`);
  return wanted;
}

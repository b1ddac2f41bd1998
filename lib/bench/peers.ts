// Other programs that are measured beside ours. They are no dependencies: npm installs them into a folder of the user's when they are asked for.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { homedir, platform } from 'node:os';
import { join } from 'node:path';
import { abortedError, MiniGptError } from '../errors.js';

/** The versions that figures are stated for. */
export const PEERS = { 'node-llama-cpp': '3.22.1', 'onnxruntime-node': '1.30.0' } as const;
export type PeerName = keyof typeof PEERS;

/** Where the system keeps what can be fetched again. */
export function defaultPeerFolder(): string {
  const caches =
    process.env['XDG_CACHE_HOME'] || join(homedir(), ...(platform() === 'darwin' ? ['Library', 'Caches'] : ['.cache']));
  return join(caches, 'minigpt4', 'peers');
}

function installed(folder: string, name: PeerName): string | undefined {
  try {
    const manifest = readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8');
    return (JSON.parse(manifest) as { version: string }).version;
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
 * on a CPU. Errors: ERR_NETWORK with npm's reason, ERR_ABORTED.
 */
export async function installPeer(folder: string, name: PeerName, signal: AbortSignal): Promise<string> {
  const wanted = PEERS[name];
  if (installed(folder, name) === wanted) return wanted;
  await mkdir(folder, { recursive: true });
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
  const failure = await new Promise<string | undefined>((done) => {
    child.on('error', (error) => done(error.message));
    child.on('close', (code) => done(code === 0 ? undefined : reason(output) || `npm ended with ${code}`));
  });
  if (signal.aborted) throw abortedError(signal);
  const found = installed(folder, name);
  if (failure !== undefined || found !== wanted) {
    throw new MiniGptError(
      'ERR_NETWORK',
      `${name} ${wanted} could not be installed: ${failure ?? `found ${found ?? 'nothing'} afterwards`}`,
    );
  }
  return wanted;
}

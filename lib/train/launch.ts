// Starts the processes of a run on this machine, as torchrun does: places in the environment, output told apart,
// signals passed on, and an end for all when one fails.
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer, type AddressInfo } from 'node:net';
import { availableParallelism, constants } from 'node:os';
import type { Readable } from 'node:stream';
import { MiniGptError } from '../errors.js';

export interface LaunchOptions {
  /** What every process runs: `command argv...`; default: this Node with its own flags. */
  command?: string;
  argv: string[];
  env?: NodeJS.ProcessEnv;
  /** Threads of each; default: the machine's cores divided, 1 at least. Given on as MINIGPT4_THREADS. */
  threads?: number;
  /**
   * Milliseconds that the others have to end by themselves (and write a checkpoint) when one has failed; default: 2
   * minutes.
   */
  grace?: number;
  /** Where lines of all but rank 0, and what happens to processes, are written; default: standard error. */
  say?: (line: string) => void;
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** Milliseconds from the polite signal to the last one. */
const lastGrace = 10_000;

/**
 * Runs `count` processes until all have ended. Rank 0 has this process's input and outputs; of the others standard
 * error alone is passed on, each line after `[rank N]`. Returns 0, or the exit code of the first that failed (128 + the
 * signal's number where one ended it). Errors: ERR_ARGUMENT.
 */
export async function launch(count: number, options: LaunchOptions): Promise<number> {
  if (!(Number.isInteger(count) && count >= 1 && count <= 1024))
    throw new MiniGptError('ERR_ARGUMENT', `processes: expected a whole number from 1 to 1024, found ${count}`);
  const say = options.say ?? ((line: string) => void process.stderr.write(`${line}\n`));
  const env = options.env ?? process.env;
  const threads = options.threads ?? Math.max(1, Math.floor(availableParallelism() / count));
  const shared = {
    ...env,
    WORLD_SIZE: String(count),
    LOCAL_WORLD_SIZE: String(count),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(await freePort()),
    TORCHELASTIC_USE_AGENT_STORE: undefined,
    MINIGPT4_RUN: randomBytes(8).toString('hex'),
    MINIGPT4_THREADS: String(threads),
  };
  const children: ChildProcess[] = [];
  const running = new Set<ChildProcess>();
  let exitCode = 0;
  const timers: NodeJS.Timeout[] = [];

  const signalAll = (signal: NodeJS.Signals) => {
    for (const child of running) child.kill(signal);
  };
  const forward = (signal: NodeJS.Signals) => signalAll(signal);
  for (const signal of signals) process.on(signal, forward);

  const ended = (
    rank: number,
    child: ChildProcess,
    code: number | null,
    signal: NodeJS.Signals | null,
    why?: string,
  ) => {
    running.delete(child);
    if (code === 0 || exitCode !== 0) return;
    exitCode = code ?? 128 + (signal ? constants.signals[signal] : 0);
    if (count === 1 || running.size === 0) return;
    const how = why ?? (signal ? `was ended by ${signal}` : `ended with exit code ${code}`);
    say(`minigpt4: rank ${rank} (process ${child.pid ?? 'none'}) ${how}; the others end now`);
    timers.push(
      setTimeout(() => {
        say(`minigpt4: ${running.size} of ${count} processes still run and are told to end`);
        signalAll('SIGTERM');
      }, options.grace ?? 120_000),
      setTimeout(() => signalAll('SIGKILL'), (options.grace ?? 120_000) + lastGrace),
    );
  };

  try {
    await Promise.all(
      Array.from({ length: count }, (_, rank) => {
        const own = { ...shared, RANK: String(rank), LOCAL_RANK: String(rank) };
        const child = spawn(
          options.command ?? process.execPath,
          [...(options.command === undefined ? process.execArgv : []), ...options.argv],
          {
            env: own,
            // A group of their own: Ctrl-C reaches them once, through this process. The channel tells them when this
            // process has gone.
            detached: true,
            stdio: rank === 0 ? ['inherit', 'inherit', 'inherit', 'ipc'] : ['ignore', 'ignore', 'pipe', 'ipc'],
          },
        );
        children.push(child);
        running.add(child);
        if (child.stderr) prefixLines(child.stderr, `[rank ${rank}] `, say);
        return new Promise<void>((resolve) => {
          child.on('error', (error) => {
            // said once for a process that could not be started; other errors (a signal that came too late) are no end
            if (child.pid !== undefined) return;
            ended(rank, child, 1, null, `could not be started: ${error.message}`);
            resolve();
          });
          child.on('exit', (code, signal) => ended(rank, child, code, signal));
          child.on('close', () => resolve());
        });
      }),
    );
  } finally {
    for (const timer of timers) clearTimeout(timer);
    for (const signal of signals) process.off(signal, forward);
  }
  return exitCode;
}

/** Whole lines of a stream, each after a prefix; of text that rewrites its line (`\r`) the last state. */
function prefixLines(stream: Readable, prefix: string, say: (line: string) => void): void {
  let text = '';
  stream.setEncoding('utf8').on('data', (more: string) => {
    const lines = (text + more).split('\n');
    text = lines.pop()!;
    for (const line of lines) say(prefix + line.replace(/^.*\r(?=.)/, ''));
  });
  stream.on('end', () => {
    if (text !== '') say(prefix + text);
  });
}

/** A port that nothing used a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

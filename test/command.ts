// Runs this package's command line and small scripts in processes of their own.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Written to standard input, which is closed then. */
  input?: string | Uint8Array;
  env?: Record<string, string>;
  cwd?: string;
  /** Milliseconds after which it counts as hanging; left out: two minutes. */
  limitMs?: number;
  /** Told what stdout has so far; may end or signal the process. */
  onOutput?: (stdout: string, child: ReturnType<typeof spawn>) => void;
}

const path = (file: string) => fileURLToPath(new URL(file, import.meta.url));

function run(words: string[], options: RunOptions): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), ...words], {
      cwd: options.cwd ?? path('..'),
      env: { ...process.env, MINIGPT4_MODEL: '', ...options.env },
      stdio: 'pipe',
    });
    const ended: Ended = { code: null, signal: null, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      ended.stdout += text;
      options.onOutput?.(ended.stdout, child);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      ended.stderr += text;
    });
    child.stdin.on('error', () => {}); // it may end before it has read everything
    child.stdin.end(options.input ?? '');
    // a process that hangs is killed, and fails its test by its signal
    const limit = setTimeout(() => child.kill('SIGKILL'), options.limitMs ?? 120_000);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      resolve({ ...ended, code, signal });
    });
  });
}

/** `minigpt4 WORDS...` */
export const minigpt4 = (words: string[], options: RunOptions = {}): Promise<Ended> =>
  run([path('../lib/cli/main.ts'), ...words], options);

/** A script of module TypeScript; `lib` in it is the URL of lib/. */
export function script(text: string, options: RunOptions = {}, flags: string[] = []): Promise<Ended> {
  const lib = new URL('../lib/', import.meta.url).href;
  return run([...flags, '--input-type=module', '--eval', `const lib = ${JSON.stringify(lib)};\n${text}`], options);
}

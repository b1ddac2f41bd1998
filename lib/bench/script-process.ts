// A script of this folder in a process of its own: asked, waited for no longer than a limit, ended with a signal that aborts. Its last words
// on stderr are kept for its error.
import { fork, type ChildProcess, type Serializable } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { abortedError, MiniGptError } from '../errors.js';

const EXTENSION = extname(fileURLToPath(import.meta.url)); // of the sources, or as built
/** Of what it wrote to stderr. */
const KEPT_CHARACTERS = 2000;
const KEPT_LINES = 3;

export type ScriptName = 'neighbour-process' | 'ours' | 'peer-llama' | 'peer-onnx' | 'touch-memory-process';

export class ScriptProcess {
  readonly #child: ChildProcess;
  readonly #title: string;
  readonly #signal: AbortSignal | undefined;
  #stderr = '';
  /** It ended, and all that it wrote has come. */
  #closed = false;

  /** `title`: what its errors call it. `words`: its arguments. */
  constructor(script: ScriptName, title: string, signal?: AbortSignal, words: string[] = []) {
    this.#title = title;
    this.#signal = signal;
    this.#child = fork(fileURLToPath(new URL(`${script}${EXTENSION}`, import.meta.url)), words, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child.on('error', () => {}); // whoever waits for an answer hears of it; until then nothing is lost
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-KEPT_CHARACTERS);
    });
    this.#child.once('close', () => (this.#closed = true));
    if (signal?.aborted) this.kill();
    else signal?.addEventListener('abort', this.kill, { once: true });
  }

  /** Undefined: it could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Errors: ERR_INTERNAL (it ended, or could not be asked), ERR_ABORTED. */
  send(message: Serializable): Promise<void> {
    return new Promise((sent, failed) => {
      if (this.#ended()) return failed(this.#end());
      this.#child.send(message, (cause) => (cause ? failed(this.#failure(cause)) : sent()));
    });
  }

  /**
   * Its next message, after sending it `question` if there is one. Errors: ERR_INTERNAL (it ended, could not be started or asked, or said nothing
   * in `limitMs`, after which it is ended), ERR_ABORTED.
   */
  answer(limitMs: number, question?: Serializable): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void): void => {
        clearTimeout(timer);
        this.#child.off('message', answered).off('close', closed).off('error', failed);
        how();
      };
      const answered = (message: unknown): void => settle(() => resolve(message));
      const closed = (): void => settle(() => reject(this.#end()));
      const failed = (cause: Error): void => settle(() => reject(this.#failure(cause)));
      const timer = setTimeout(() => {
        this.kill();
        const how = `${this.#title} did not answer in ${limitMs / 1000} s`;
        settle(() => reject(new MiniGptError('ERR_INTERNAL', how)));
      }, limitMs);
      this.#child.on('message', answered).once('close', closed).once('error', failed);
      if (this.#closed) closed();
      else if (question !== undefined)
        // what cannot be written went to a process that has just ended, and its 'close' knows why
        this.#child.send(question, (cause) => cause && !this.#ended() && this.kill());
    });
  }

  /** Ends it, and waits until its memory is free. */
  async close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.kill);
    if (this.#ended() || this.#child.pid === undefined) return;
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.kill();
    await ended;
  }

  /** It holds nothing but memory and time, so nothing is lost. */
  readonly kill = (): void => void this.#child.kill('SIGKILL');

  #ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  #end(): MiniGptError {
    if (this.#signal?.aborted) return abortedError(this.#signal);
    const { exitCode, signalCode } = this.#child;
    const told = this.#stderr.split('\n').filter((line) => line.trim() && !/^\s+at /.test(line)); // but where in its code
    const words = told.slice(-KEPT_LINES).join(' ');
    const how = `${this.#title} ended by ${signalCode ?? `exit code ${exitCode}`}`;
    return new MiniGptError('ERR_INTERNAL', words ? `${how}: ${words}` : how);
  }

  #failure(cause: Error): MiniGptError {
    if (this.#signal?.aborted) return abortedError(this.#signal);
    return new MiniGptError('ERR_INTERNAL', `${this.#title}: ${cause.message}`, { cause });
  }
}

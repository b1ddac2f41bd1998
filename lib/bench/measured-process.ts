// A process that is measured, from outside: it is asked (serve.ts), and its memory and its threads' time are looked at meanwhile.
import { fork, type ChildProcess } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { abortedError, MiniGptError, toMiniGptError } from '../errors.js';
import { memoryNow, stolenShare, threadTimes, threadUse, ticksNow, type Memory } from './machine.js';
import type { Answer, Question, Wish } from './serve.js';
import type { Test } from './measured-test.js';

/** One run of something, and the shares of the time that its threads did not get: waiting for a core, and kept by the host. */
export interface Run {
  ms: number;
  waitedShare?: number;
  stolenShare?: number;
}

const EXTENSION = extname(fileURLToPath(import.meta.url)); // of the sources, or as built
/** Of what it wrote to stderr, for its error. */
const KEPT_CHARACTERS = 2000;

export class MeasuredProcess {
  readonly title: string;
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal;
  readonly #stop = (): void => this.kill();
  #stderr = '';

  /** `script`: a file of this folder, without its ending. */
  constructor(script: 'ours' | 'peer-llama' | 'peer-onnx', title: string, signal: AbortSignal) {
    this.title = title;
    this.#signal = signal;
    this.#child = fork(fileURLToPath(new URL(`${script}${EXTENSION}`, import.meta.url)), {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child.on('error', () => {}); // seen where its answer is missing
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-KEPT_CHARACTERS);
    });
    signal.addEventListener('abort', this.#stop, { once: true });
  }

  /** Resolves when it has begun, so that nothing comes between a question and what is measured. */
  async ready(limitMs: number): Promise<void> {
    await this.#ask({ ready: true }, limitMs);
  }

  async load(wish: Wish, limitMs: number): Promise<Run> {
    return this.#watched({ load: wish }, limitMs);
  }

  async run(test: Test, turn: number, limitMs: number): Promise<Run> {
    return this.#watched({ run: test, turn }, limitMs);
  }

  memory(): Memory | undefined {
    return this.#child.pid === undefined ? undefined : memoryNow(this.#child.pid);
  }

  /** Ends it, and waits until its memory is free. */
  async close(): Promise<void> {
    this.#signal.removeEventListener('abort', this.#stop);
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined) return;
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.kill();
    await ended;
  }

  /** It holds nothing but memory, so nothing is lost. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async #watched(question: Question, limitMs: number): Promise<Run> {
    const pid = this.#child.pid ?? 'self';
    const threads = threadTimes(pid);
    const ticks = ticksNow();
    const ms = await this.#ask(question, limitMs);
    const waitedShare = threadUse(threads, pid)?.waitedShare;
    const stolen = stolenShare(ticks);
    return {
      ms,
      ...(waitedShare === undefined ? {} : { waitedShare }),
      ...(stolen === undefined ? {} : { stolenShare: stolen }),
    };
  }

  #ask(question: Question, limitMs: number): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        this.#child.off('message', answered);
        this.#child.off('exit', ended);
        this.#child.off('error', failed);
        settle();
      };
      const answered = (answer: Answer): void =>
        end(() => {
          if ('value' in answer) resolve(answer.value);
          else reject(toMiniGptError(Object.assign(new Error(answer.error.message), { code: answer.error.code })));
        });
      const ended = (code: number | null, signal: string | null): void =>
        end(() => {
          if (this.#signal.aborted) return reject(abortedError(this.#signal));
          const words = this.#stderr.trim().split('\n').slice(-3).join(' ');
          const how = `${this.title} ended by ${signal ?? `exit code ${code}`}`;
          reject(new MiniGptError('ERR_INTERNAL', words ? `${how}: ${words}` : how));
        });
      const failed = (error: Error): void => end(() => reject(toMiniGptError(error)));
      const timer = setTimeout(() => {
        this.kill();
        end(() =>
          reject(new MiniGptError('ERR_INTERNAL', `${this.title} did not answer in ${(limitMs / 1000).toFixed(0)} s`)),
        );
      }, limitMs);
      this.#child.on('message', answered).once('exit', ended).once('error', failed);
      if (this.#child.exitCode !== null || this.#child.signalCode !== null)
        ended(this.#child.exitCode, this.#child.signalCode);
      else this.#child.send(question, (error) => error && this.#child.connected && failed(error));
    });
  }
}

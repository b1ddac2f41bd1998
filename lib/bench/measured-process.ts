// A process that is measured, from outside: it is asked (serve.ts), and its memory and its threads' time are looked at meanwhile.
import { toMiniGptError } from '../errors.js';
import { memoryNow, stolenShare, threadTimes, threadUse, ticksNow, type Memory } from './machine.js';
import type { Test } from './measured-test.js';
import { ScriptProcess } from './script-process.js';
import type { Answer, Question, Wish } from './serve.js';

/** One run of something, and the shares of the time that its threads did not get: waiting for a core, and kept by the host. */
export interface Run {
  ms: number;
  waitedShare?: number;
  stolenShare?: number;
}

export class MeasuredProcess {
  readonly title: string;
  readonly #process: ScriptProcess;

  /** `script`: a file of this folder, without its ending. */
  constructor(script: 'ours' | 'peer-llama' | 'peer-onnx', title: string, signal: AbortSignal) {
    this.title = title;
    this.#process = new ScriptProcess(script, title, signal);
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
    return this.#process.pid === undefined ? undefined : memoryNow(this.#process.pid);
  }

  /** Ends it, and waits until its memory is free. */
  async close(): Promise<void> {
    await this.#process.close();
  }

  async #watched(question: Question, limitMs: number): Promise<Run> {
    const pid = this.#process.pid ?? 'self';
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

  async #ask(question: Question, limitMs: number): Promise<number> {
    const answer = (await this.#process.answer(limitMs, question)) as Answer;
    if ('value' in answer) return answer.value;
    throw toMiniGptError(Object.assign(new Error(answer.error.message), { code: answer.error.code }));
  }
}

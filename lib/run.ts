// An answer in the making: iterate over it for its text as it comes, await it for the whole.
import type { FinishReason } from './addon.js';
import { abortedError, toMiniGptError } from './errors.js';

export interface Answer {
  text: string;
  /** Generated token ids, the one that ended the answer included. */
  ids: number[];
  /** 'stop': the template's or the caller's stop text; 'eos': the model's end token; 'length': maxTokens; 'context': no room left. */
  finishReason: FinishReason;
  /** What the answer was drawn with; give it again for the same answer. */
  seed: number | bigint;
  usage: {
    /** Positions of the whole prompt: text tokens and picture vectors. */
    promptTokens: number;
    imageTokens: number;
    completionTokens: number;
    /** Of promptTokens, those that did not have to be computed again. */
    cachedTokens: number;
    /** Tokens that the option `lookup` guessed, and of them those that stand in the answer without a pass of their own. */
    guessedTokens: number;
    acceptedTokens: number;
  };
  /** Milliseconds. */
  timings: {
    /** Encoding the pictures that are new in this turn. */
    encodeMs: number;
    prefillMs: number;
    decodeMs: number;
    /** From the call to the first token, reading and encoding a picture included. */
    firstTokenMs: number;
    totalMs: number;
  };
}

/**
 * Works at once, whether anybody listens or not.
 *
 * - `for await (const text of run)` gives the text's pieces as they come (joined they are the answer's text) and throws what went wrong.
 *   Leaving the loop early aborts the work. Every loop sees all pieces from the first one on.
 * - `await run` gives the answer or throws. A run that nobody awaits or iterates fails in silence: it never ends the
 *   process as an unhandled rejection; what `then`, `catch` and `finally` return are ordinary promises.
 */
export class Run<Result = Answer> implements Promise<Result>, AsyncIterable<string> {
  readonly [Symbol.toStringTag] = 'Run';
  readonly #controller = new AbortController();
  readonly #result: Promise<Result>;
  readonly #pieces: string[] = [];
  #waiting: (() => void)[] = [];
  #ended = false;

  /** `work` gets a function that takes the text's pieces and a signal that it has to obey; `signal` aborts from outside. */
  constructor(work: (emit: (piece: string) => void, signal: AbortSignal) => Promise<Result>, signal?: AbortSignal) {
    const follow = () => this.#controller.abort(signal?.reason);
    signal?.addEventListener('abort', follow, { once: true });
    const emit = (piece: string) => {
      if (piece === '' || this.#controller.signal.aborted) return;
      this.#pieces.push(piece);
      this.#wake();
    };
    const start = async (): Promise<Result> => {
      if (signal?.aborted) throw abortedError(signal);
      return work(emit, this.#controller.signal);
    };
    this.#result = start()
      .catch((error: unknown) => {
        throw toMiniGptError(error);
      })
      .finally(() => {
        signal?.removeEventListener('abort', follow);
        this.#ended = true;
        this.#wake();
      });
    this.#result.catch(() => {}); // whoever wants to know awaits or iterates
  }

  /** Ends the work within one token; the run rejects with ERR_ABORTED. Harmless when it has ended. */
  abort(reason?: unknown): void {
    if (!this.#ended) this.#controller.abort(reason);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
    let seen = 0;
    let left = true;
    try {
      for (;;) {
        while (seen < this.#pieces.length) yield this.#pieces[seen++]!;
        if (this.#ended) break;
        await new Promise<void>((resume) => this.#waiting.push(resume));
      }
      left = false;
    } finally {
      if (left) this.abort();
    }
    await this.#result;
  }

  then<Value = Result, Other = never>(
    onValue?: ((result: Result) => Value | PromiseLike<Value>) | null,
    onError?: ((error: unknown) => Other | PromiseLike<Other>) | null,
  ): Promise<Value | Other> {
    return this.#result.then(onValue, onError);
  }

  catch<Other = never>(onError?: ((error: unknown) => Other | PromiseLike<Other>) | null): Promise<Result | Other> {
    return this.#result.catch(onError);
  }

  finally(onEnd?: (() => void) | null): Promise<Result> {
    return this.#result.finally(onEnd);
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}

/** The promise's outcome, or ERR_ABORTED as soon as the signal says so; `end` is told then, and the work itself ends unheard. */
export async function untilAborted<Value>(
  promise: Promise<Value>,
  signal: AbortSignal,
  end: () => void,
): Promise<Value> {
  promise.catch(() => {});
  let stop = () => {};
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        stop = () => {
          end();
          reject(abortedError(signal));
        };
        if (signal.aborted) stop();
        else signal.addEventListener('abort', stop, { once: true });
      }),
    ]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

// Asks a language model behind an OpenAI-compatible chat completions endpoint to put a description right; patient with servers that are
// busy, and silent about the key.
import { setTimeout as sleep } from 'node:timers/promises';
import { MiniGptError, abortedError } from '../errors.js';

/** What the paper asked ChatGPT to do with each description. */
export const refineInstruction =
  'Fix the error in the given paragraph. Remove any repeating sentences, meaningless characters, not English sentences, and so on. ' +
  'Remove unnecessary repetition. Rewrite any incomplete sentences. Return directly the results without explanation. ' +
  'Return directly the input paragraph if it is already correct without explanation.';

export interface RefinerOptions {
  /** Where the interface begins, as `https://host/v1`; `/chat/completions` is added. */
  url: string;
  /** The model's name there. */
  model: string;
  /** Sent as a bearer token and told nowhere. Default: the environment's MINIGPT4_REFINE_KEY, or else OPENAI_API_KEY; neither: none is sent. */
  key?: string;
  /** Default: `refineInstruction`. */
  instruction?: string;
  /** Default: 0.7. */
  temperature?: number;
  /** Tokens of a reply at most. Default: 200. */
  maxTokens?: number;
  /** Seconds that one reply may take. Default: 120. */
  timeout?: number;
  /** Requests for one description at most. Default: 6. */
  attempts?: number;
  /** Seconds of the shortest wait between two attempts; it doubles, up to `longestWait`. Default: 1. */
  wait?: number;
  /** Seconds. Default: 60. */
  longestWait?: number;
}

export interface Refined {
  text: string;
  /** What the server says answered. */
  model: string;
  /** 'stop', or 'length' where maxTokens cut it. */
  finishReason: string;
  attempts: number;
}

/** The server understood and will not: another description may fare better. */
export class RefusedError extends MiniGptError {
  constructor(message: string) {
    super('ERR_NETWORK', message);
  }
}

/** A server that asks for a longer pause than this many seconds is not waited for. */
const longestPause = 900;
const mostReplyBytes = 4 * 2 ** 20;
/** Statuses that pass: too early, busy, and what gateways say while the server behind them restarts. */
const passing = (status: number) => status === 408 || status === 425 || status === 429 || status >= 500;
/** Statuses about the one request: what it says is not accepted, too long, or filtered. */
const aboutRequest = (status: number) => status === 400 || status === 413 || status === 422;

/** A failure that another attempt may not meet. */
class Passing extends Error {
  constructor(
    message: string,
    /** Seconds the server asks to wait. */
    readonly pause = 0,
  ) {
    super(message);
  }
}

export class Refiner {
  readonly #options: Required<Omit<RefinerOptions, 'key'>>;
  readonly #endpoint: URL;
  readonly #key: string | undefined;

  /** Errors: ERR_ARGUMENT (no usable address). */
  constructor(options: RefinerOptions) {
    this.#options = {
      instruction: refineInstruction,
      temperature: 0.7,
      maxTokens: 200,
      timeout: 120,
      attempts: 6,
      wait: 1,
      longestWait: 60,
      ...options,
    };
    this.#endpoint = endpointOf(options.url);
    const key = options.key ?? (process.env['MINIGPT4_REFINE_KEY'] || process.env['OPENAI_API_KEY'] || undefined);
    if (key !== undefined && !/^[\x21-\x7e]+$/.test(key)) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        'the key of the refining server: expected letters, digits and marks without spaces, found other characters',
      );
    }
    this.#key = key;
  }

  /** The server's address as it may be shown: without what follows a question mark. */
  get shown(): string {
    return `${this.#endpoint.origin}${this.#endpoint.pathname}`;
  }

  /**
   * One description, put right. Errors: RefusedError (about this description: status 400, 413, 422), ERR_NETWORK (the server does not answer
   * as it should, after all attempts; at once where another attempt cannot help: status 401, 403, 404, ...), ERR_ABORTED.
   */
  async refine(description: string, signal?: AbortSignal): Promise<Refined> {
    const { attempts, wait, longestWait } = this.#options;
    for (let attempt = 1; ; attempt++) {
      if (signal?.aborted) throw abortedError(signal);
      try {
        return { ...(await this.#ask(description, signal)), attempts: attempt };
      } catch (error) {
        if (signal?.aborted) throw abortedError(signal);
        if (!(error instanceof Passing)) throw error;
        const gaveUp = attempt >= attempts || error.pause > longestPause;
        if (gaveUp) {
          const tries = attempt === 1 ? 'after one attempt' : `after ${attempt} attempts`;
          const pause = error.pause > longestPause ? `; it asks to wait ${Math.ceil(error.pause)} seconds` : '';
          throw new MiniGptError('ERR_NETWORK', `${this.shown}: ${error.message} (${tries}${pause})`);
        }
        // drawn, so that requests that failed together do not come again together
        const drawn = wait + Math.random() * (Math.min(longestWait, wait * 2 ** attempt) - wait);
        try {
          await sleep(Math.max(drawn, error.pause) * 1000, undefined, signal ? { signal } : {});
        } catch {
          throw abortedError(signal);
        }
      }
    }
  }

  async #ask(description: string, signal: AbortSignal | undefined): Promise<Omit<Refined, 'attempts'>> {
    const { model, instruction, temperature, maxTokens, timeout } = this.#options;
    const limit = AbortSignal.timeout(Math.ceil(timeout * 1000));
    let status: number;
    let headers: Headers;
    let body: string;
    try {
      const response = await fetch(this.#endpoint, {
        method: 'POST',
        redirect: 'manual',
        headers: {
          'content-type': 'application/json',
          accept: 'application/json',
          ...(this.#key === undefined ? {} : { authorization: `Bearer ${this.#key}` }),
        },
        body: JSON.stringify({
          model,
          messages: [
            { role: 'system', content: instruction },
            { role: 'user', content: description },
          ],
          temperature,
          max_tokens: maxTokens,
        }),
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
      });
      ({ status, headers } = response);
      body = await readBody(response);
    } catch (error) {
      if (error instanceof Passing) throw error;
      if (limit.aborted) throw new Passing(`expected an answer within ${timeout} seconds, found none`);
      throw new Passing(`expected an answer, found none: ${this.#without(reasonOf(error))}`);
    }
    if (status >= 200 && status < 300) return this.#read(body, model);
    const message = `expected an answer, found status ${status}${this.#said(body)}`;
    if (passing(status)) throw new Passing(message, pauseOf(headers.get('retry-after')));
    if (aboutRequest(status)) throw new RefusedError(`${this.shown}: ${message}`);
    const advice =
      status === 401 || status === 403
        ? '; the key is taken from the environment: MINIGPT4_REFINE_KEY, or else OPENAI_API_KEY'
        : status >= 300 && status < 400
          ? `; it has moved to ${this.#without(headers.get('location') ?? 'somewhere else')}`
          : status === 404
            ? '; expected the address where the interface begins, usually ending in /v1, and a model that is there'
            : '';
    throw new MiniGptError('ERR_NETWORK', `${this.shown}: ${message}${advice}`);
  }

  #read(body: string, asked: string): Omit<Refined, 'attempts'> {
    let reply: unknown;
    try {
      reply = JSON.parse(body);
    } catch {
      throw new Passing(`expected JSON, found ${JSON.stringify(this.#without(body).slice(0, 80))}`);
    }
    const { choices, model } = (reply ?? {}) as { choices?: unknown; model?: unknown };
    const first: unknown = Array.isArray(choices) ? choices[0] : undefined;
    const { message, finish_reason } = (first ?? {}) as { message?: unknown; finish_reason?: unknown };
    const { content, refusal } = (message ?? {}) as { content?: unknown; refusal?: unknown };
    const text = content ?? (typeof refusal === 'string' ? '' : undefined);
    if (typeof text !== 'string') throw new Passing(`expected choices[0].message.content, found ${this.#cut(body)}`);
    return {
      text: this.#without(text),
      model: typeof model === 'string' ? this.#without(model) : asked,
      finishReason: typeof finish_reason === 'string' ? finish_reason : 'stop',
    };
  }

  /** What an error's body says, if it is the usual JSON. */
  #said(body: string): string {
    try {
      const { error, message } = JSON.parse(body) as { error?: unknown; message?: unknown };
      const words =
        typeof error === 'string' ? error : ((error as { message?: unknown } | undefined)?.message ?? message);
      if (typeof words === 'string' && words !== '') return `: ${this.#cut(words)}`;
    } catch {
      // a gateway's page, which says no more than its status
    }
    return '';
  }

  #cut(text: string): string {
    const line = this.#without(text).replace(/\s+/g, ' ').trim();
    return line.length > 200 ? `${line.slice(0, 200)}…` : line;
  }

  /** Servers quote keys in what they say. */
  #without(text: string): string {
    return this.#key === undefined ? text : text.replaceAll(this.#key, '[key]');
  }
}

function endpointOf(address: string): URL {
  const wrong = (found: string) =>
    new MiniGptError(
      'ERR_ARGUMENT',
      `the refining server: expected an address as https://host/v1 or http://localhost:8000/v1, found ${found}`,
    );
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw wrong(JSON.stringify(address));
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw wrong(`one of ${url.protocol}`);
  if (url.username || url.password) throw wrong('one with a name or password in it; a key is given by the environment');
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = path.endsWith('/chat/completions') ? path : `${path}/chat/completions`;
  url.hash = '';
  return url;
}

async function readBody(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > mostReplyBytes) throw new Passing(`expected a reply of at most ${mostReplyBytes} bytes, found more`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Seconds that a Retry-After header asks for, given as such or as a date. */
function pauseOf(header: string | null): number {
  if (header === null) return 0;
  const seconds = /^\d+(\.\d+)?$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : 0;
}

/** fetch hides the reason in its error's cause, and hides several in the cause's errors. */
function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: unknown };
  const inner = cause instanceof AggregateError ? (cause.errors[0] as unknown) : cause;
  const told = inner instanceof Error ? inner : error;
  return told instanceof Error ? told.message || told.name : String(told);
}

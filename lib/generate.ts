// One answer of the language model to a prompt, with the defaults of the original.
import { randomInt } from 'node:crypto';
import type { NativeGenerateResult, NativeModel, NativeModelInfo, NativePromptPart, NativeSequence } from './addon.js';
import { MiniGptError, abortedError } from './errors.js';
import type { GenerateOptions } from './options.js';
import { AnswerText, stopTexts } from './prompt.js';
import type { Answer } from './run.js';

export interface GenerateRequest {
  prompt: NativePromptPart[];
  options: GenerateOptions;
  info: Pick<NativeModelInfo, 'eos'>;
  /** performance.now() of the caller's call, and what encoding its new pictures took. */
  startedAt: number;
  encodeMs: number;
  emit: (piece: string) => void;
  signal: AbortSignal;
}

/**
 * Generates in `sequence`. Rejects as the native generate does; with ERR_ABORTED within one token of the signal.
 */
export async function generate(sequence: NativeSequence, request: GenerateRequest): Promise<Answer> {
  const { options, signal } = request;
  if (signal.aborted) throw abortedError(signal);
  const temperature = options.temperature ?? 1;
  const given = options.seed ?? randomInt(2 ** 32);
  const seed = Number.isInteger(given) && !Number.isSafeInteger(given) ? BigInt(given) : given; // all its digits
  const own = options.stop === undefined ? [] : [options.stop].flat();
  const answer = new AnswerText();
  let streamed = 0;
  const take = (text: string) => {
    streamed += text.length;
    request.emit(answer.push(text));
  };
  const abort = () => sequence.abort();
  signal.addEventListener('abort', abort, { once: true });
  try {
    const generateAt = performance.now();
    const result = await sequence.generate(
      {
        prompt: request.prompt,
        maxTokens: options.maxTokens ?? 300,
        lookup: options.lookup ?? 0,
        temperature,
        topK: options.topK ?? 50,
        topP: options.topP ?? 0.9,
        minP: options.minP ?? 0,
        repetitionPenalty: options.repetitionPenalty ?? (temperature === 0 ? 1 : 1.05), // greedy means the best token, unbent
        seed,
        stop: [...stopTexts, ...own],
        stopIds: request.info.eos >= 0 ? [request.info.eos] : [],
      },
      take,
    );
    take(result.text.slice(streamed)); // nothing, unless text came with the end alone
    request.emit(answer.finish());
    const { promptTokens, imageTokens, cachedTokens, guessedTokens, acceptedTokens } = result;
    const { prefillMs, decodeMs, firstTokenMs } = result;
    return {
      text: answer.text,
      ids: Array.from(result.ids),
      finishReason: result.finishReason,
      seed,
      usage: {
        promptTokens,
        imageTokens,
        completionTokens: result.ids.length,
        cachedTokens,
        guessedTokens,
        acceptedTokens,
      },
      timings: {
        encodeMs: request.encodeMs,
        prefillMs,
        decodeMs,
        firstTokenMs: generateAt - request.startedAt + firstTokenMs,
        totalMs: performance.now() - request.startedAt,
      },
    };
  } catch (error) {
    // a chat that is restarted or closed aborts and then closes the sequence: either may be what the work hears first
    const ended = error instanceof MiniGptError && (error.code === 'ERR_ABORTED' || error.code === 'ERR_CLOSED');
    throw signal.aborted && ended ? abortedError(signal) : error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/**
 * Greedy tokens after a prompt, in a fresh sequence: what a measurement or a comparison asks for. Nothing ends them but their number,
 * unless `ends` does. Rejects as the native generate does.
 */
export async function generateGreedy(
  model: NativeModel,
  prompt: NativePromptPart[],
  maxTokens: number,
  ends: { stop?: readonly string[]; stopIds?: number[] } = {},
): Promise<NativeGenerateResult> {
  const sequence = model.openSequence();
  try {
    return await sequence.generate(
      {
        prompt,
        maxTokens,
        temperature: 0,
        topK: 0,
        topP: 1,
        minP: 0,
        repetitionPenalty: 1,
        seed: 0,
        stop: [...(ends.stop ?? [])],
        stopIds: ends.stopIds ?? [],
      },
      () => {},
    );
  } finally {
    sequence.close();
  }
}

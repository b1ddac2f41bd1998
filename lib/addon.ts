// Finds and loads the native binary, and mirrors its exports in types. Nothing else loads it.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MiniGptError, toMiniGptError } from './errors.js';
import type { KvType } from './options.js';

/** GGUF's block types as the command line and the converter write them. */
export type TypeName =
  'f32' | 'f16' | 'bf16' | 'q8_0' | 'q5_0' | 'q5_1' | 'q4_0' | 'q4_1' | 'q2_k' | 'q3_k' | 'q4_k' | 'q5_k' | 'q6_k';

export type GgufKeyType =
  'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'bool' | 'string' | 'u64' | 'i64' | 'f64' | 'array';

/** A metadata entry. 64-bit integers beyond 2^53 come as bigint; arrays as plain arrays (numbers, strings, booleans). */
export interface GgufKey {
  key: string;
  type: GgufKeyType;
  /** Element type when `type` is 'array'. */
  elementType?: GgufKeyType;
  value: number | bigint | boolean | string | (number | bigint)[] | string[] | boolean[];
}

export interface GgufTensorInfo {
  name: string;
  type: TypeName;
  /** Row-major, PyTorch's order: [out, in] for a weight. The format stores it the other way round. */
  shape: number[];
  /** In the file. */
  bytes: number;
  /** True of a matrix in the CPU's layout (docs/format.md); type and shape are then those of the numbers it stands for. */
  grouped: boolean;
}

export interface GgufContents {
  version: number;
  keys: GgufKey[];
  tensors: GgufTensorInfo[];
}

/** Streams a GGUF file: keys and tensor plan first, then the values of each tensor in the plan's order. */
export interface NativeGgufWriter {
  /**
   * Appends `values` (raw little-endian numbers of type `source`) to the current tensor, whole rows of it; encoded to the
   * plan's type on another thread. Await each call before the next.
   */
  write(source: TypeName, values: Uint8Array): Promise<void>;
  /** Checks completeness, flushes, renames into place. */
  finish(): Promise<void>;
  /** Removes the unfinished file; harmless after finish. */
  discard(): void;
}

/** A SentencePiece `tokenizer.model`, parsed. */
export interface SentencePieceModel {
  pieces: string[];
  scores: Float32Array;
  /** 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
  kinds: Int32Array;
  bos: number;
  eos: number;
  unknown: number;
  padding: number;
  addSpacePrefix: boolean;
  removeExtraWhitespaces: boolean;
}

/** A tokenizer without a model, from a `tokenizer.model` or a GGUF file; it works on the JavaScript thread. */
export interface NativeTokenizer {
  readonly size: number;
  /** Ids of one text on its own; `specials`: parse `<s>`, `</s>`, … in it (default false). No BOS. */
  encode(text: string, specials?: boolean): Int32Array;
  decode(ids: Int32Array | number[]): string;
  /** The id of a piece by its text (`'<s>'`), -1 if there is none. */
  idOf(piece: string): number;
}

export interface NativeLoadOptions {
  /** A bundle or a vision file. Left out: `llm` alone, a language model that sees no pictures. */
  model?: string;
  /** A llama-architecture GGUF that takes the place of the bundle's language model. */
  llm?: string;
  /** A projection file that takes the place of the one in `model`. */
  projection?: string;
  device?: string;
  /** Layers of the language model, from the last one back, that the device computes; default: as many as fit. */
  gpuLayers?: number;
  /** Where the picture's side is computed; default: on the device if it fits beside the language model. */
  visionDevice?: 'cpu' | 'gpu';
  /** Pictures that are encoded at once at most, 1 to 32; default: 1 on the CPU, on a device as many as its memory holds with room to spare. */
  imageBatch?: number;
  /** Bytes that may be taken of the device's memory; default: what is free, less a reserve. */
  gpuMemory?: number;
  threads?: number;
  cpuLevel?: string;
  /** Positions of one sequence at most; default: the model's context length, but 4096 at most. */
  contextLength?: number;
  /** Positions of all sequences together that the KV cache holds; default: contextLength. */
  cacheLength?: number;
  kvType?: KvType;
  /** Called with fractions 0..1 while weights are read. */
  onProgress?: (fraction: number) => void;
}

/** Bytes that one owner ('llm weights', 'kv cache', …) holds now and held at most, in how many pieces; of '… (mapped)' they lie in the model's file. */
export interface MemoryHolding {
  owner: string;
  bytes: number;
  peak: number;
  pieces: number;
}

export interface NativeModelInfo {
  name: string;
  /** `minigpt4.variant` of the file; empty for a language model alone. */
  variant: string;
  template: string;
  /** On the CPU alone: `cpu`, the level of its kernels, `, N threads`. */
  device: string;
  /** Layers of the language model that the device computes; on the CPU alone: 0. */
  gpuLayers: number;
  /** What computes the picture's side. */
  visionDevice: 'cpu' | 'gpu';
  /** Pictures that are encoded at once at most; 0 for a language model alone. */
  imageBatch: number;
  imageSize: number;
  imageTokens: number;
  /** Numbers that the projection takes for each of the picture's vectors; 0 for a language model alone. */
  projectionInput: number;
  hasQformer: boolean;
  width: number;
  layers: number;
  heads: number;
  kvHeads: number;
  vocabulary: number;
  contextLength: number;
  bos: number;
  eos: number;
  parameters: { vision: number; qformer: number; projection: number; llm: number };
  memory: MemoryHolding[];
}

/** The 32 (or 64) vectors of one picture in the language model's space. */
export interface NativeImage {
  readonly tokens: number;
  /** Milliseconds that encoding took, together with other pictures that waited. */
  readonly encodeMs: number;
  /**
   * Of these the ViT's own, the Q-Former and the projection left out; undefined where a device encoded, which is waited for at the end alone,
   * and where a trainer projected what had been encoded before.
   */
  readonly vitMs?: number | undefined;
  /** [tokens, width], a copy. */
  toFloat32Array(): Float32Array;
}

/** Gets what aborts the work that it was given to. */
export type AbortTaker = (abort: () => void) => void;

/**
 * What a prompt is made of: a string is tokenized on its own (with its own dummy space; specials are not parsed); `token` is
 * one piece by its text (`'<s>'`) or id; an image stands for its vectors.
 */
export type NativePromptPart = string | { token: string | number } | { ids: Int32Array } | NativeImage;

export interface NativeGenerateRequest {
  /** The whole conversation. What the sequence's cache already holds of its beginning is not computed again. */
  prompt: NativePromptPart[];
  maxTokens: number;
  /** Tokens guessed from prompt and answer for each pass at most, 0 to 16; the answer is the same. Default: 0. */
  lookup?: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  seed: number | bigint;
  /** Stop when the generated text contains one of these (which is cut off), also across token borders. */
  stop: string[];
  /** Stop after one of these ids (usually the model's EOS). */
  stopIds: number[];
}

export type FinishReason = 'stop' | 'eos' | 'length' | 'context';

export interface NativeGenerateResult {
  text: string;
  /** Generated ids, the one that ended the answer included. */
  ids: Int32Array;
  finishReason: FinishReason;
  promptTokens: number;
  /** Of promptTokens, those that were in the cache already. */
  cachedTokens: number;
  imageTokens: number;
  guessedTokens: number;
  /** Of guessedTokens, those that stand in the answer without a pass of their own. */
  acceptedTokens: number;
  prefillMs: number;
  decodeMs: number;
  /** From the request to the first token. */
  firstTokenMs: number;
}

/** A conversation's place in the model: its cached keys and values. */
export interface NativeSequence {
  /**
   * Starts generation; `onText` gets text as it becomes certain (never half a character) and the ids since the last call.
   * Rejects with ERR_CONTEXT_FULL, ERR_ABORTED, ERR_CLOSED, ERR_OUT_OF_MEMORY, ERR_FILE_CHANGED. One run at a time a sequence.
   */
  generate(
    request: NativeGenerateRequest,
    onText: (text: string, ids: Int32Array) => void,
  ): Promise<NativeGenerateResult>;
  /** Ends the running generation within one token; its promise rejects with ERR_ABORTED. Harmless when idle. */
  abort(): void;
  /** Ends it and returns its pages. */
  close(): void;
}

/** What each number of the projection has: a weight [output, input], row-major, and a bias [output]. */
export interface ProjectionValues {
  weight: Float32Array;
  bias: Float32Array;
}

export interface NativeTrainerOptions {
  /** Rows of one pass through the language model (memory grows with them); a larger batch takes several, with the same result. Default: 2048. */
  maxRows?: number;
  /** AdamW; defaults: 0.9, 0.999, 1e-8. */
  beta1?: number;
  beta2?: number;
  epsilon?: number;
  /** Of the weight; the bias has none. Default: 0.05. */
  weightDecay?: number;
}

/**
 * One sequence of T rows. Row t holds token ids[t], or where ids[t] is -1 the picture's next vector; targets[t] is the id that row t should
 * predict, -1: nothing is asked of it.
 */
export interface NativeTrainingSample {
  ids: Int32Array;
  targets: Int32Array;
  /** [rows with id -1, projectionInput]: float32, or IEEE halfs as their bits. */
  features: Float32Array | Uint16Array;
}

/** Sums over targets, natural logarithms. */
export interface NativeBatchLoss {
  loss: number;
  targets: number;
  /** By sample. */
  losses: Float64Array;
  counts: Int32Array;
}

export interface NativeTrainerState {
  /** Steps of AdamW done. */
  step: number;
  values: ProjectionValues;
  firstMoment: ProjectionValues;
  secondMoment: ProjectionValues;
}

/** Trains the projection of a model that is loaded; computes on the model's own thread. Starts with the model's projection. */
export interface NativeTrainer {
  /**
   * Adds the gradient of the loss sum to what is there: several calls are exactly one. Errors: ERR_ARGUMENT (what does not fit the model, a
   * sequence longer than maxRows or the context), ERR_ABORTED, ERR_OUT_OF_MEMORY; then nothing has changed.
   */
  accumulate(samples: NativeTrainingSample[]): Promise<NativeBatchLoss>;
  /** The losses alone. */
  evaluate(samples: NativeTrainingSample[]): Promise<NativeBatchLoss>;
  /** Gradient sums since the last apply or discard, and the number of targets they are over. */
  gradient(): Promise<ProjectionValues & { targets: number }>;
  /** Puts sums of several processes in their place. Errors: ERR_SHAPE, ERR_ARGUMENT; then nothing has changed. */
  setGradient(gradient: ProjectionValues & { targets: number }): Promise<void>;
  discardGradient(): Promise<void>;
  /**
   * A step of AdamW with the gradient's mean over its targets, shortened to `maxNorm` where it is longer (0 or left out: never).
   * Errors: ERR_NAN_LOSS (nothing has changed), ERR_ARGUMENT (nothing was accumulated).
   */
  apply(step: { rate: number; maxNorm?: number }): Promise<{ gradientNorm: number; clipped: boolean }>;
  state(): Promise<NativeTrainerState>;
  /** Errors: ERR_SHAPE. */
  restore(state: NativeTrainerState): Promise<void>;
  /** A picture with the projection as it is now, for prompts of the same model. features: as in a sample. */
  project(features: Float32Array | Uint16Array): Promise<NativeImage>;
  /** Ends running accumulate and evaluate calls within a layer: they reject with ERR_ABORTED. */
  abort(): void;
  /** Frees its memory; the model stays. */
  close(): void;
}

export interface NativeModel {
  info(): NativeModelInfo;
  encode(text: string, specials?: boolean): Int32Array;
  decode(ids: Int32Array | number[]): string;
  /**
   * RGB bytes [height, width, 3], resampled to the model's square by Pillow's bicubic, normalised, encoded. Pictures that wait are encoded
   * together, info().imageBatch at most, each with the same result as alone. `onBegin` is called at once with what aborts this one:
   * it rejects with ERR_ABORTED, and is not computed where that has not begun.
   */
  encodeImage(rgb: Uint8Array, width: number, height: number, onBegin?: AbortTaker): Promise<NativeImage>;
  /** What the projection reads: [imageTokens, projectionInput] of a picture given as to encodeImage. */
  encodeFeatures(rgb: Uint8Array, width: number, height: number, onBegin?: AbortTaker): Promise<Float32Array>;
  openSequence(): NativeSequence;
  /** Errors: ERR_ARGUMENT (a language model alone), ERR_OUT_OF_MEMORY, ERR_CLOSED. */
  openTrainer(options?: NativeTrainerOptions): Promise<NativeTrainer>;
  /** Every stage of one picture ('vit.embed', 'vit.block.0', 'ln_vision', 'qformer.layer.0', 'image_tokens'), from normalised pixels [3, S, S]. */
  traceImage(pixels: Float32Array): Promise<Record<string, Float32Array>>;
  /** Every stage of one prompt ('embeds', 'llama.layer.0', 'logits' of every row). */
  tracePrompt(prompt: NativePromptPart[]): Promise<Record<string, Float32Array>>;
  /**
   * Ends everything that runs (ERR_CLOSED) and frees the model. After it info, encode, decode, openSequence and generate throw ERR_CLOSED,
   * and what gives a promise rejects with it.
   */
  close(): Promise<void>;
}

export interface NativeCollectiveOptions {
  rank: number;
  size: number;
  /** Numeric address that the other processes reach this one at. */
  host: string;
  /** Milliseconds for each connection, and for each step of a sum. */
  connectTimeout?: number;
  sumTimeout?: number;
  /** Where the plug-in lies; default: beside the binary. */
  folder?: string;
}

/** Sums over several processes. Works on a thread of its own, one call after the other. */
export interface NativeCollective {
  /** What every other process needs to connect. */
  address(): Uint8Array;
  /** Addresses of all ranks in order. Errors: ERR_COLLECTIVE. */
  connect(addresses: Uint8Array[]): Promise<void>;
  /**
   * Element-wise sums over all processes, the same bits on each: added in float64 in the order of ranks, rounded once.
   * Errors: ERR_COLLECTIVE (nothing can be summed after it), ERR_CLOSED.
   */
  sum(values: Float32Array): Promise<Float32Array>;
  sumNumbers(values: number[]): Promise<number[]>;
  /** Closes the connections; what runs rejects with ERR_COLLECTIVE. */
  close(): void;
}

/** Units a second, of several passes; neighbours can only take away, so the best is the limit. */
export interface NativePeakRate {
  median: number;
  best: number;
}

/** What this machine does at most at one level with so many threads together; a multiply-add counts as two operations. */
export interface NativeMachineRates {
  level: string;
  threads: number;
  /** Bytes of a buffer beyond the caches. */
  read: NativePeakRate;
  /** float32 multiply-adds. */
  fma: NativePeakRate;
  /** int8 products of the level's vector unit, and products of its matrix unit, where it has such. */
  dot?: NativePeakRate;
  tileInt8?: NativePeakRate;
  tileBf16?: NativePeakRate;
  /** Of the threads' time, waiting for a core; undefined where the system does not tell. */
  waitedShare?: number;
}

export interface Addon {
  /** Instruction set levels that this build has and this CPU can run, slowest first. */
  cpuLevels(): string[];
  /** Measures for some seconds, on threads of its own. Errors: ERR_ARGUMENT, ERR_NO_BACKEND (the level), ERR_OUT_OF_MEMORY. */
  measureMachine(options: {
    threads?: number;
    level?: string;
    bytes: number;
    passes: number;
  }): Promise<NativeMachineRates>;
  /** Puts a file out of the system's cache, so that it is read again from the disk; false: this system cannot. Errors: ERR_FILE_READ. */
  forgetFile(path: string): Promise<boolean>;
  loadModel(options: NativeLoadOptions): Promise<NativeModel>;
  /** Metadata and tensor list of a GGUF file, everything checked. */
  readGguf(path: string): Promise<GgufContents>;
  /** One tensor's values. */
  readGgufTensor(path: string, name: string): Promise<Float32Array>;
  createGgufWriter(
    path: string,
    keys: GgufKey[],
    tensors: { name: string; type: TypeName; shape: number[]; grouped?: boolean }[],
  ): NativeGgufWriter;
  /** Blocks of `type` for rows of `rowLength` values, and back. On the JavaScript thread, as for tests and tools. */
  encodeRows(type: TypeName, rowLength: number, values: Float32Array): Uint8Array;
  decodeRows(type: TypeName, rowLength: number, bytes: Uint8Array): Float32Array;
  /** Element by element sum of two IEEE half arrays, rounded to half as PyTorch adds them. */
  addHalf(a: Uint8Array, b: Uint8Array): Uint8Array;
  readSentencePiece(bytes: Uint8Array): SentencePieceModel;
  /** From a `tokenizer.model`'s bytes, or from the path of a GGUF file. Reads it on the JavaScript thread, as for tests and tools. */
  createTokenizer(source: Uint8Array | string): NativeTokenizer;
  /** Pillow's bicubic: RGB [height, width, 3] to [size, size, 3]. */
  resizeBicubic(rgb: Uint8Array, width: number, height: number, size: number): Promise<Uint8Array>;
  /** CLIP-normalised planes [3, size, size] of RGB [size, size, 3]. */
  normalise(rgb: Uint8Array, size: number): Float32Array;
  /** This process's end of a group. Errors: ERR_NO_BACKEND (built without Gloo), ERR_COLLECTIVE. */
  openCollective(options: NativeCollectiveOptions): NativeCollective;
}

// ---------------------------------------------------------------- loading

/** The package's own folder: the parent of lib/ and of dist/. */
export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));

/** What stands between the machine and a loaded binary, with what can be done about it. */
function explainMissing(attempts: string[]): MiniGptError {
  // a musl libc reports no glibc version
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  const glibc = report?.header?.glibcVersionRuntime;
  const libc = process.platform === 'linux' ? `, ${glibc ? `glibc ${glibc}` : 'musl'}` : '';
  const all = attempts.join('\n');
  const remedies = [
    'build it on this machine, with a C++20 compiler and cmake 3.18 or newer:\n' +
      '      npm install --save-dev cmake-js node-addon-api node-api-headers\n' +
      `      node ${join(packageRoot, 'scripts', 'cmake.mjs')}`,
  ];
  if (/GLIBC(XX)?_[0-9.]+' not found|GLIBC(XX)?_[0-9.]+/.test(all)) {
    remedies.push(
      'the binary was built for a newer system library than this one: build it here, or use a newer distribution',
    );
  }
  if (/invalid ELF header|wrong ELF class|incompatible architecture|not a valid Win32|mach-o/i.test(all)) {
    remedies.push(
      'the binary is for another platform: remove node_modules and install on this machine instead of copying it',
    );
  }
  return new MiniGptError(
    'ERR_NO_BACKEND',
    [
      `the native part of minigpt4 could not be loaded on ${process.platform} ${process.arch}${libc}, Node ${process.versions.node}:`,
      ...attempts.map((attempt) => `  - ${attempt}`),
      'What helps:',
      ...remedies.map((remedy) => `  - ${remedy}`),
    ].join('\n'),
  );
}

const require = createRequire(import.meta.url);

/** Where the binary is: an own build first, then prebuilds/<platform>-<arch>/; MINIGPT4_PREBUILD names another folder. Throws where there is none. */
export function addonPath(): string {
  return (require('node-gyp-build') as { path(folder: string): string }).path(packageRoot);
}

/** Loads the binary; errors: ERR_NO_BACKEND with every attempt. */
function load(): Addon {
  const attempts: string[] = [];
  const words = (error: unknown) => (error instanceof Error ? error.message.split('\n')[0]! : String(error));
  let path: string;
  try {
    path = addonPath();
  } catch (error) {
    attempts.push(`${join(packageRoot, 'build')} and ${join(packageRoot, 'prebuilds')}: ${words(error)}`);
    throw explainMissing(attempts);
  }
  try {
    return require(path) as Addon;
  } catch (error) {
    attempts.push(`${path}: ${words(error)}`);
    throw explainMissing(attempts);
  }
}

/** Functions whose result has methods of its own that can fail. */
const makers = new Set([
  'loadModel',
  'openSequence',
  'openTrainer',
  'createGgufWriter',
  'createTokenizer',
  'openCollective',
]);

/**
 * The same object with every failure of its methods, thrown or rejected, as a MiniGptError. Here is the only place where native errors
 * are turned into ours.
 */
function guarded<T extends object>(target: T): T {
  const methods = new Map<PropertyKey, unknown>();
  return new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      if (!methods.has(key)) {
        const finish = makers.has(String(key)) ? (made: unknown) => guarded(made as object) : (made: unknown) => made;
        methods.set(key, (...parameters: unknown[]) => {
          try {
            const result: unknown = Reflect.apply(value, target, parameters);
            if (!(result instanceof Promise)) return finish(result);
            return result.then(finish, (error: unknown) => {
              throw toMiniGptError(error);
            });
          } catch (error) {
            throw toMiniGptError(error);
          }
        });
      }
      return methods.get(key);
    },
  });
}

let loaded: Addon | undefined;

/** The native functions. The binary is loaded when the first of them is looked up, so importing never fails. */
export const addon: Addon = new Proxy({} as Addon, {
  get: (_, key) => {
    loaded ??= guarded(load());
    return Reflect.get(loaded, key) as unknown;
  },
});

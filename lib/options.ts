// What the options of the public functions may be, and the one voice in which wrong ones are reported.
import { z } from 'zod';
import { MiniGptError } from './errors.js';
import { meantBy, nearest, type Known } from './nearest.js';
import type { TemplateName } from './prompt.js';

/** How an answer is made. Defaults are the original's, its silent top-k of 50 included. */
export interface GenerateOptions {
  /** 0 takes the best token always (greedy). Default: 1. */
  temperature?: number;
  /** Keep the best tokens that hold this share of the probability together; 1: all. Default: 0.9. */
  topP?: number;
  /** Keep this many best tokens; 0: all. Default: 50. */
  topK?: number;
  /** Drop tokens less probable than this share of the best one; 0: none. Default: 0. */
  minP?: number;
  /** Makes tokens that were generated already less likely; 1: off. Default: 1.05, but 1 when temperature is 0. */
  repetitionPenalty?: number;
  /** The same picture, question, options and seed give the same answer. Default: drawn at random, told in the answer. */
  seed?: number | bigint;
  /** Tokens of the answer at most. Default: 300. */
  maxTokens?: number;
  /**
   * Tokens that are guessed at once, from where prompt and answer said the same before, and checked in one pass: the answer stays the same
   * and comes sooner where it repeats what was said. 0 (off) to 16. Default: 0.
   */
  lookup?: number;
  /** Ends the answer before any of these texts, besides the template's own. */
  stop?: string | string[];
  /** Ends the answer within one token; it rejects with ERR_ABORTED. */
  signal?: AbortSignal;
}

export interface DescribeOptions extends GenerateOptions {
  /** The question. Default: 'Describe this image in detail.' */
  prompt?: string;
  /** The conversation template's name. Default: the model file's. */
  template?: TemplateName;
}

export interface ChatOptions extends Omit<GenerateOptions, 'signal'> {
  /** The conversation template's name. Default: the model file's. */
  template?: TemplateName;
}

/**
 * What computes: 'auto' takes the first NVIDIA GPU if there is one, else the CPU. 'simt' runs the GPU's kernels on the CPU and checks every
 * access of theirs: for tests in a checkout, thousands of times slower than a GPU.
 */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}` | 'simt' | `simt:${number}`;
/** Instruction set levels of the CPU. */
export type CpuLevel = 'scalar' | 'avx2' | 'avx-vnni' | 'avx512' | 'amx' | 'neon' | 'neon-i8mm';

/** Number types of cached keys and values. */
export type KvType = 'f16' | 'f32' | 'q8_0';

export interface LoadOptions {
  /** A bundle or a vision file. Default: the environment's MINIGPT4_MODEL, or else the embedded miniature. */
  model?: string | URL;
  /** A llama-architecture GGUF that takes the place of the bundle's language model. */
  llm?: string | URL;
  /** A projection file that takes the place of the model's own. */
  projection?: string | URL;
  /** What computes. Default: 'cpu'. */
  device?: Device;
  /**
   * Layers of the language model that the GPU computes, the last ones; the CPU does the rest. Default: as many as its memory holds. On device
   * 'cpu' nothing but 0 is right; where 'auto' finds no GPU it means nothing, as visionDevice and gpuMemory do.
   */
  gpuLayers?: number;
  /** What computes the picture's side. Default: the same GPU where its memory holds both, else the CPU. On device 'cpu' only 'cpu' is right. */
  visionDevice?: 'cpu' | 'gpu';
  /** Pictures that are encoded at once at most, 1 to 32. Default: 1 on the CPU, on a GPU as many as its memory holds with room to spare. */
  imageBatch?: number;
  /** Bytes of the GPU's memory that the model may take. Default: what is free when it is loaded, less a reserve. Not for device 'cpu'. */
  gpuMemory?: number;
  /** Threads that compute. Default: the machine's cores. */
  threads?: number;
  /** The instruction set level, of those that the machine has. Default: its best. */
  cpuLevel?: CpuLevel;
  /** Positions (tokens and picture vectors) of one conversation at most. Default: the model's. */
  contextLength?: number;
  /** Positions of all conversations together. Default: contextLength. */
  cacheLength?: number;
  /**
   * Number type of cached keys and values. Default: 'f16'. 'q8_0' takes half the memory, rounds to 8 bits a block of 32 of a head's values, and is
   * for device 'cpu' alone.
   */
  kvType?: KvType;
  /** The conversation template's name. Default: the model file's. */
  template?: TemplateName;
  /** Pixels that a picture may have at most. Default: 100 million. */
  maxPixels?: number;
  /** Told fractions from 0 to 1 while weights are read. */
  onProgress?: (fraction: number) => void;
}

type Fields<Options> = Record<keyof Options, z.ZodType>;

/** A value's rule and its name in errors: "expected …"; `known` are words of which the nearest is proposed. */
const field = (expected: string, rule: z.ZodType, known: Known = []) => rule.meta({ expected, known });
/** `native/ops` knows these; which of them this machine has, it tells itself. */
const devices = ['auto', 'cpu', 'cuda'];
/** The device that was probably meant: who writes `gpu` or `nvidia:1` means a GPU, however near to 'cpu' the letters are. */
export function meantDevice(word: string): string | undefined {
  const [gpu, number = ''] = /^(?:gpu|nvidia)(:\d{1,3}(?!\d))?/i.exec(word) ?? [];
  return gpu === undefined ? nearest(word, devices) : `cuda${number}`;
}
/** Of options and of configurations. */
export const deviceRule = z.string().regex(/^(auto|cpu|(cuda|simt)(:\d{1,3})?)$/);
export const deviceWords = "'auto', 'cpu', 'cuda' or 'cuda:N'";
const cpuLevels = ['scalar', 'avx2', 'avx-vnni', 'avx512', 'amx', 'neon', 'neon-i8mm'];
const whole = (least: number, largest: number) => z.number().int().min(least).max(largest);
/** Pictures at once: `native/models/placement.h`. */
const mostImages = 32;
/** Tokens guessed at once: `native/engine/generation.h`. */
const mostLookup = 16;
// of options and of configurations, as the device is
export const visionDevices = ['cpu', 'gpu'] as const;
export const visionDeviceRule = z.enum(visionDevices);
export const visionDeviceWords = "'cpu' or 'gpu'";
export const imageBatchRule = whole(1, mostImages);
export const imageBatchWords = `a whole number from 1 to ${mostImages}`;
export const gpuMemoryRule = whole(1, Number.MAX_SAFE_INTEGER);
export const gpuMemoryWords = `a whole number of bytes from 1 to ${Number.MAX_SAFE_INTEGER}`;
const most = 2 ** 24; // of tokens and positions; no model has so many
const path = () => field('a path or a file: URL', z.union([z.string().min(1), z.instanceof(URL)]));

const generateFields: Fields<GenerateOptions> = {
  temperature: field('a number from 0 (greedy) to 100', z.number().min(0).max(100)),
  topP: field('a number above 0 and at most 1', z.number().gt(0).max(1)),
  topK: field(`a whole number from 0 (all tokens) to ${most}`, whole(0, most)),
  minP: field('a number from 0 to 1', z.number().min(0).max(1)),
  repetitionPenalty: field('a number above 0', z.number().gt(0)),
  seed: field(
    `a whole number from 0 to ${2n ** 64n - 1n}`,
    z.union([
      z.custom<number>((value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 64),
      z
        .bigint()
        .min(0n)
        .max(2n ** 64n - 1n),
    ]),
  ),
  maxTokens: field(`a whole number from 1 to ${most}`, whole(1, most)),
  lookup: field(`a whole number from 0 (off) to ${mostLookup}`, whole(0, mostLookup)),
  stop: field(
    'a text or an array of texts, none empty',
    z.union([z.string().min(1), z.array(z.string().min(1)).max(1000)]),
  ),
  signal: field(
    'an AbortSignal',
    z.custom((value) => value instanceof AbortSignal),
  ),
};
const template = field('the name of a template', z.string().min(1));
const { signal: _, ...chatFields } = generateFields;

const describeFields: Fields<DescribeOptions> = {
  ...generateFields,
  template,
  prompt: field('a text that is not empty', z.string().regex(/\S/)),
};
const loadFields: Fields<LoadOptions> = {
  model: path(),
  llm: path(),
  projection: path(),
  template,
  device: field(deviceWords, deviceRule, meantDevice),
  gpuLayers: field(`a whole number from 0 to ${most}`, whole(0, most)),
  visionDevice: field(visionDeviceWords, visionDeviceRule, visionDevices),
  imageBatch: field(imageBatchWords, imageBatchRule),
  gpuMemory: field(gpuMemoryWords, gpuMemoryRule),
  threads: field('a whole number from 1 to 1024', whole(1, 1024)),
  cpuLevel: field(`one of ${cpuLevels.join(', ')}`, z.enum(cpuLevels), cpuLevels),
  contextLength: field(`a whole number from 1 to ${most}`, whole(1, most)),
  cacheLength: field(`a whole number from 1 to ${most}`, whole(1, most)),
  kvType: field("'f16', 'f32' or 'q8_0'", z.enum(['f16', 'f32', 'q8_0'])),
  maxPixels: field('a whole number from 1', whole(1, Number.MAX_SAFE_INTEGER)),
  onProgress: field(
    'a function',
    z.custom((value) => typeof value === 'function'),
  ),
};

export const generateRules = z.object(generateFields);
export const chatRules = z.object({ ...chatFields, template });
export const describeRules = z.object(describeFields);
export const imageRules = z.object({ signal: generateFields.signal });
export const encodeRules = z.object({ specials: field('true or false', z.boolean()) });
export const loadRules = z.object(loadFields);

/** A value as an error shows it: short, strings in quotes, a bigint as JavaScript writes it. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value))
    return `an array of ${value.length}${value.length ? ` (${value.slice(0, 3).map(show).join(', ')}${value.length > 3 ? ', …' : ''})` : ''}`;
  if (typeof value === 'object' && value !== null) return `an object of ${value.constructor?.name ?? 'no class'}`;
  return String(value);
}

/** How TypeScript writes an option's name. */
export const asItIs = (key: string): string => key;

/**
 * The options without those that are undefined. `of` names the function in errors (`describe()`), `spell` gives an option's name as the user
 * writes it (a flag on the command line). Errors: ERR_ARGUMENT with option, expected and found, or the nearest known option.
 */
export function checkOptions<Options extends object>(
  rules: z.ZodObject,
  options: Options | undefined,
  of: string,
  spell: (key: string) => string = asItIs,
): Options {
  if (options === undefined) return {} as Options;
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new MiniGptError('ERR_ARGUMENT', `${of}: expected an object of options, found ${show(options)}`);
  }
  const checked: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules.shape, key)) {
      const known = Object.keys(rules.shape);
      const meant = nearest(key, known);
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${of}: unknown option ${spell(key)}; ` +
          (meant ? `did you mean ${spell(meant)}?` : `expected one of ${known.map(spell).join(', ')}`),
      );
    }
    if (value === undefined) continue;
    const rule = rules.shape[key] as z.ZodType;
    if (!rule.safeParse(value).success) {
      const { expected, known } = rule.meta() as { expected: string; known: Known };
      const meant = typeof value === 'string' ? meantBy(value, known) : undefined;
      // on the command line a number is a number, however many digits it has
      const found = typeof value === 'bigint' && spell !== asItIs ? String(value) : show(value);
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${of}: option ${spell(key)}: expected ${expected}, found ${found}${meant ? ` (did you mean ${meant}?)` : ''}`,
      );
    }
    checked[key] = value;
  }
  return checked as Options;
}

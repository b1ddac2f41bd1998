// The command line's grammar: commander, with our nearest-word advice, flags that several commands share, and exit codes.
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { MiniGptError, toMiniGptError, type ErrorCode } from '../errors.js';
import { nearest } from '../nearest.js';
import type { GenerateOptions, LoadOptions } from '../options.js';
import { templateOf, type TemplateName } from '../prompt.js';

/** 0: done; failed: something went wrong; wrongUse: the command line itself was wrong; interrupted: Ctrl-C. */
export const exitCodes = { failed: 1, wrongUse: 2, interrupted: 130 } as const;

/** Commander's command that names the nearest known flag or command, however far commander itself would look. */
export class Program extends Command {
  override createCommand(name?: string): Program {
    return new Program(name);
  }

  // commander calls these two when it meets an unknown word
  unknownOption(flag: string): void {
    const known = this.createHelp()
      .visibleOptions(this)
      .flatMap((option) => (option.long ? [option.long] : []));
    this.#unknown('option', flag, nearest(flag.split('=')[0]!, known));
  }

  unknownCommand(): void {
    const name = this.args[0] ?? '';
    this.#unknown(
      'command',
      name,
      nearest(
        name,
        this.commands.map((command) => command.name()),
      ),
    );
  }

  #unknown(kind: string, word: string, meant: string | undefined): void {
    this.error(`error: unknown ${kind} '${word}'${meant ? `\n(Did you mean ${meant}?)` : ''}`, {
      code: 'commander.unknown',
    });
  }
}

/** Parses a flag's number; what numbers are allowed is checked with the options of the TypeScript interface. */
export function parseNumber(text: string): number {
  const value = text.trim() === '' ? NaN : Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError('Expected a number.');
  return value;
}

/** Like parseNumber; whole numbers beyond 2^53 keep all their digits. */
export function parseSeed(text: string): number | bigint {
  const value = parseNumber(text);
  return /^\d+$/.test(text.trim()) && !Number.isSafeInteger(value) ? BigInt(text) : value;
}

/** `topP` as the user writes it: `--top-p`. */
export const flagOf = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

export type ModelFlags = Pick<
  LoadOptions,
  'device' | 'gpuLayers' | 'visionDevice' | 'imageBatch' | 'gpuMemory' | 'threads' | 'contextLength' | 'kvType'
> & {
  model?: string;
  llm?: string;
  projection?: string;
};

export function addModelFlags(
  command: Command,
  model = 'bundle or vision file (default: MINIGPT4_MODEL, or else the embedded miniature)',
): Command {
  return command
    .option('--model <file>', model)
    .option('--llm <file>', "llama-architecture GGUF in place of the bundle's language model")
    .option('--projection <file>', "projection file in place of the model's own")
    .option('--device <name>', 'what computes: cpu, cuda, cuda:N or auto (default: cpu)')
    .option('--gpu-layers <n>', 'layers of the language model on the GPU (default: as many as fit)', parseNumber)
    .option('--vision-device <name>', "what computes the picture's side: gpu or cpu (default: gpu if it fits)")
    .option(
      '--image-batch <n>',
      'pictures encoded at once at most (default: 1 on the CPU, up to 32 on a GPU)',
      parseNumber,
    )
    .option('--gpu-memory <bytes>', "of the GPU's memory at most (default: what is free)", parseNumber)
    .option('--threads <n>', "threads that compute (default: the machine's cores)", parseNumber)
    .option('--context-length <n>', "positions of a conversation at most (default: the model's)", parseNumber)
    .option('--kv-type <type>', 'of cached keys and values: f16, f32 or, on the CPU, q8_0 (default: f16)');
}

export function modelFlags(flags: ModelFlags & PictureFlags): LoadOptions {
  return picked(flags, [
    'model',
    'llm',
    'projection',
    'device',
    'gpuLayers',
    'visionDevice',
    'imageBatch',
    'gpuMemory',
    'threads',
    'contextLength',
    'kvType',
    'maxPixels',
  ]);
}

export interface PictureFlags {
  maxPixels?: number;
}

export function addPictureFlags(command: Command): Command {
  return command.option('--max-pixels <n>', 'pixels of a picture at most (default: 100 million)', parseNumber);
}

export type GenerateFlags = Pick<
  GenerateOptions,
  'temperature' | 'topP' | 'topK' | 'minP' | 'repetitionPenalty' | 'seed' | 'maxTokens' | 'lookup'
> & { stop?: string[]; template?: TemplateName };

export function addGenerateFlags(command: Command): Command {
  return command
    .option('--template <name>', "conversation template (default: the model's)")
    .option('--temperature <n>', '0 = greedy, the best token always (default: 1)', parseNumber)
    .option('--top-p <n>', 'keep the best tokens that hold this share of the probability (default: 0.9)', parseNumber)
    .option('--top-k <n>', 'keep this many best tokens, 0 = all (default: 50)', parseNumber)
    .option('--min-p <n>', 'drop tokens below this share of the best one (default: 0)', parseNumber)
    .option('--repetition-penalty <n>', 'above 1: repeat less (default: 1.05; greedy: 1)', parseNumber)
    .option('--seed <n>', 'the same seed gives the same answer (default: random)', parseSeed)
    .option('--max-tokens <n>', 'tokens of an answer at most (default: 300)', parseNumber)
    .option('--lookup <n>', 'guess up to n tokens from what was said: same answer, sooner (default: 0)', parseNumber)
    .option(
      '--stop <text>',
      'end the answer before this text (may be given several times)',
      (text: string, all: string[] = []) => [...all, text],
    );
}

export function generateFlags(flags: GenerateFlags): GenerateOptions & { template?: TemplateName } {
  if (flags.template !== undefined) templateOf(flags.template); // before a model is loaded for nothing
  return picked(flags, [
    'template',
    'temperature',
    'topP',
    'topK',
    'minP',
    'repetitionPenalty',
    'seed',
    'maxTokens',
    'lookup',
    'stop',
  ]);
}

export function picked<Flags extends object, Key extends keyof Flags>(
  flags: Flags,
  keys: readonly Key[],
): Pick<Flags, Key> {
  return Object.fromEntries(keys.filter((key) => flags[key] !== undefined).map((key) => [key, flags[key]])) as Pick<
    Flags,
    Key
  >;
}

/** Options that native errors name, as TypeScript writes them. */
const namedInErrors = /\b(?:gpuLayers|visionDevice|imageBatch|gpuMemory|kvType)\b/g;

const codesOfLoading: ErrorCode[] = ['ERR_ARGUMENT', 'ERR_OUT_OF_MEMORY', 'ERR_UNSUPPORTED'];

/** Throws the error of loading with options named as flags. */
export function inFlags(error: unknown): never {
  if (!(error instanceof MiniGptError) || !codesOfLoading.includes(error.code)) throw error;
  const message = error.message.replace(namedInErrors, flagOf);
  throw message === error.message ? error : new MiniGptError(error.code, message, { cause: error });
}

/** What a failure means to the shell. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitCodes.wrongUse;
  return error instanceof MiniGptError && error.code === 'ERR_ARGUMENT' ? exitCodes.wrongUse : exitCodes.failed;
}

/** One line of JSON; whole numbers beyond 2^53 as strings. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part))}\n`;
}

const told = new WeakSet<Error>();

/** The same error, which the user has been told of already: only the exit code is left to give. */
export function asTold(error: Error): Error {
  told.add(error);
  return error;
}

export const isTold = (error: unknown): boolean => error instanceof Error && told.has(error);

export function errorObject(error: unknown): { error: { code: string; message: string } } {
  if (error instanceof CommanderError)
    return { error: { code: 'ERR_ARGUMENT', message: error.message.replace(/^error: /, '') } };
  const { code, message } = toMiniGptError(error);
  return { error: { code, message } };
}

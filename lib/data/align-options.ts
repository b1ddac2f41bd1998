// What the making of stage-2 data is told, and which values it takes.
import { z } from 'zod';
import type { MiniGPT4 } from '../model.js';
import { checkOptions, describeRules, imageRules, loadRules, type LoadOptions } from '../options.js';
import type { TemplateName } from '../prompt.js';
import type { RefinerOptions } from './align-refine.js';

/** What the paper asked the stage-1 model. */
export const alignPrompt = 'Describe this image in detail. Give as many details as possible. Say everything you see.';

export interface AlignOptions {
  /** A folder of pictures, one picture, or a data set in any form that training takes (its captions are not read). */
  pictures: string;
  /** The folder that the record and the data set are written to; a record that is there is gone on with. */
  out: string;
  /** A loaded model, which stays open, or what MiniGPT4.load() takes. Default: the embedded miniature. */
  model?: MiniGPT4 | LoadOptions;
  /** The server that puts descriptions right; false: they are taken as they are; left out: describing is all that happens. */
  refine?: RefinerOptions | false;
  /** Pictures drawn at random. Default: all of them, in order. */
  count?: number;
  /** Of the draw and of the descriptions. Default: 42. */
  seed?: number;
  /** Default: `alignPrompt`. */
  prompt?: string;
  /** Asked after a short description. Default: 'Continue'. */
  continuation?: string;
  /** Tokens up to which a description is short. Default: 80. */
  continueUpTo?: number;
  /** Default: 1. */
  temperature?: number;
  /** Tokens of a description, and of its continuation, at most. Default: 300. */
  maxTokens?: number;
  /** Default: the words of training, 'vicuna0-train' or 'llama2-train' as the model's own template is. */
  template?: TemplateName;
  /** Pictures described at once. Default: 4. */
  atOnce?: number;
  /** Requests to the refining server at once. Default: 4. */
  requests?: number;
  /** The list of captions is written anew after so many kept pictures, and at the end. Default: 50. */
  saveEvery?: number;
  /** Further phrases that drop a caption. */
  dropPhrases?: string[];
  /** Pixels of a picture at most. Default: 100 million. */
  maxPixels?: number;
  signal?: AbortSignal;
}

const field = (expected: string, rule: z.ZodType) => rule.meta({ expected, known: [] });
const whole = (least: number, most: number) =>
  field(`a whole number from ${least} to ${most}`, z.number().int().min(least).max(most));
const text = (expected: string) => field(expected, z.string().regex(/\S/));
const above = (what: string, most: number) => field(`${what} above 0 and at most ${most}`, z.number().gt(0).max(most));

const refineFields: Record<keyof RefinerOptions, z.ZodType> = {
  url: text('an address as https://host/v1'),
  model: text("the name of the server's model"),
  key: text('a key that is not empty'),
  instruction: text('a text that is not empty'),
  temperature: field('a number from 0 to 2', z.number().min(0).max(2)),
  maxTokens: whole(1, 2 ** 20),
  timeout: above('seconds', 86_400),
  attempts: whole(1, 100),
  wait: above('seconds', 3600),
  longestWait: above('seconds', 3600),
};
const refineRules = z.object(refineFields);

const alignFields: Record<keyof AlignOptions, z.ZodType> = {
  pictures: text('the path of pictures'),
  out: text('the path of a folder'),
  model: field('a loaded model or the options of MiniGPT4.load()', z.looseObject({})),
  refine: field('the options of a refining server, or false', z.union([z.literal(false), z.looseObject({})])),
  count: whole(1, 2 ** 32 - 1),
  seed: whole(0, Number.MAX_SAFE_INTEGER),
  prompt: describeRules.shape['prompt'],
  continuation: text('a text that is not empty'),
  continueUpTo: whole(0, 2 ** 20),
  temperature: describeRules.shape['temperature'],
  maxTokens: describeRules.shape['maxTokens'],
  template: describeRules.shape['template'],
  atOnce: whole(1, 32),
  requests: whole(1, 256),
  saveEvery: whole(1, 2 ** 31),
  dropPhrases: field('an array of texts, none empty', z.array(z.string().regex(/[\p{L}\p{N}]/u))),
  maxPixels: loadRules.shape['maxPixels'],
  signal: imageRules.shape['signal'],
};
const alignRules = z.object(alignFields);

/** The options, checked. `spell` as for checkOptions. Errors: ERR_ARGUMENT. */
export function checkAlignOptions(options: AlignOptions, of: string, spell?: (key: string) => string): AlignOptions {
  const checked = checkOptions(alignRules, options, of, spell);
  if (checked.refine)
    checked.refine = checkOptions(
      refineRules,
      checked.refine,
      `${of}: refine`,
      spell && ((key) => spell(`refine-${key}`)),
    );
  return checked;
}

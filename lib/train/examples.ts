// From pairs to what the model is trained on: ids and targets exactly as the original lays them out, without its padding.
import type { NativeModel } from '../addon.js';
import type { LoadedPair, Turn } from '../data/pair.js';
import { MiniGptError } from '../errors.js';

/** Stands for the picture in a prompt. */
export const imageMark = '<ImageHere>';

export interface ExampleRules {
  /** Stage 2: lines with `<ImageHere>`, of which every batch draws one. Stage 1: none. */
  prompts: readonly string[];
  /** `{}` in it is the prompt or the question. */
  template: string;
  /** Ends every answer; `</s>` in it is the token. */
  endSymbol: string;
  /** Tokens of an answer at most; where there are several turns, of all that follows the first question. */
  maxTextLength: number;
}

/** The part of a loaded model that this needs. */
export type ExampleModel = Pick<NativeModel, 'encode' | 'info'>;

/** The rows of a sequence, as NativeTrainingSample has them, and whether maxTextLength cut off its end symbol. */
export interface Example {
  ids: Int32Array;
  targets: Int32Array;
  cut: boolean;
}

/** A text that is tokenized on its own, a token by its text, or the picture. */
export type Part = string | { token: string } | { image: true };

export class ExampleMaker {
  readonly #rules: ExampleRules;
  readonly #model: ExampleModel;
  readonly #bos: number;
  readonly #picture: number[];
  readonly #prompts: number[][];
  readonly #longest: number;

  /** `longest`: rows of a sequence that the model takes. */
  constructor(model: ExampleModel, rules: ExampleRules, longest = Infinity) {
    this.#longest = longest;
    const { bos, imageTokens } = model.info();
    this.#rules = rules;
    this.#model = model;
    this.#bos = bos;
    this.#picture = new Array<number>(imageTokens).fill(-1);
    this.#prompts = rules.prompts.map((_, prompt) => this.#rows(this.parts(prompt).slice(1)));
  }

  /** How many prompts a batch draws one of; 0: nothing is asked before an answer. */
  get prompts(): number {
    return this.#prompts.length;
  }

  /** What stands before an answer, with the prompt of this number (stage 2). */
  parts(prompt: number): Part[] {
    const line = this.#rules.prompts[prompt];
    if (line === undefined) return [{ token: '<s>' }, { image: true }];
    const pieces = line.split(imageMark).flatMap((text, i): Part[] => (i === 0 ? [text] : [{ image: true }, text]));
    return [{ token: '<s>' }, ...filled(this.#rules.template, pieces)];
  }

  /** The rows of a pair, or why it cannot be used; `prompt` is the number of the batch's prompt, for pairs without a question of their own. */
  usable({ turns }: Pick<LoadedPair, 'turns'>, prompt: number): Example | { reason: string } {
    const [first, ...later] = turns;
    if (!first) return { reason: 'expected a caption, found none' };
    const before = [this.#bos, ...this.#asked(first, prompt)];
    const said: number[] = [];
    const learned: number[] = [];
    const answer = (text: string) => {
      const ids = this.#rows(joined([text, ...tokensIn(this.#rules.endSymbol)]));
      said.push(...ids);
      learned.push(...ids);
    };
    answer(first.answer);
    for (const turn of later) {
      const ids = [this.#bos, ...this.#rows(filled(this.#rules.template, [turn.question ?? '']))];
      said.push(...ids);
      learned.push(...ids.map(() => -1));
      answer(turn.answer);
    }
    const cut = said.length > this.#rules.maxTextLength;
    const ids = [...before, ...said.slice(0, this.#rules.maxTextLength)];
    const learn = [...before.map(() => -1), ...learned.slice(0, this.#rules.maxTextLength)];
    // what comes after the last token to learn changes nothing; that token itself is asked of the row before it
    const last = learn.findLastIndex((id) => id !== -1);
    if (last < 0) return { reason: 'expected an answer with a token to learn, found an empty one' };
    if (last > this.#longest)
      return { reason: `expected at most ${this.#longest} rows (run.max_rows, the model's context), found ${last}` };
    return { ids: Int32Array.from(ids.slice(0, last)), targets: Int32Array.from(learn.slice(1, last + 1)), cut };
  }

  /** The same for a pair that must be usable. Error: ERR_ARGUMENT (nothing to learn from, longer than the model takes). */
  example(pair: Pick<LoadedPair, 'name' | 'turns'>, prompt: number): Example {
    const made = this.usable(pair, prompt);
    if ('reason' in made) throw new MiniGptError('ERR_ARGUMENT', `${pair.name}: ${made.reason}`);
    return made;
  }

  #asked({ question }: Turn, prompt: number): number[] {
    if (question === undefined) return this.#prompts[prompt] ?? this.#picture;
    // worded as the lines of alignment.txt
    return this.#rows(filled(this.#rules.template, ['<Img>', { image: true }, `</Img> ${question}`]));
  }

  #rows(parts: readonly Part[]): number[] {
    return parts.flatMap((part) => {
      if (typeof part === 'string') return Array.from(this.#model.encode(part));
      return 'image' in part ? this.#picture : Array.from(this.#model.encode(part.token, true));
    });
  }
}

/** The template with `content` in place of `{}`. Only the template's own words may hold tokens. */
function filled(template: string, content: readonly Part[]): Part[] {
  const at = template.indexOf('{}');
  return joined([...tokensIn(template.slice(0, at)), ...content, ...tokensIn(template.slice(at + 2))]);
}

/** Words with their `<s>` and `</s>` as tokens. */
function tokensIn(words: string): Part[] {
  return words.split(/(<s>|<\/s>)/).map((piece) => (piece === '<s>' || piece === '</s>' ? { token: piece } : piece));
}

/** Texts side by side become one, since each is tokenized on its own; empty ones go. */
function joined(parts: readonly Part[]): Part[] {
  const all: Part[] = [];
  for (const part of parts) {
    const last = all.at(-1);
    if (typeof part === 'string' && typeof last === 'string') all[all.length - 1] = last + part;
    else if (part !== '') all.push(part);
  }
  return all;
}

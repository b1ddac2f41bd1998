// How a run is doing: the loss on pairs kept from training, and answers to the same pictures each time.
import type { NativeImage, NativeModel, NativePromptPart, NativeTrainer, NativeTrainingSample } from '../addon.js';
import { readHoldout } from '../data/loader.js';
import { pictureOptions } from '../data/load-pair.js';
import type { LoaderOptions } from '../data/options.js';
import { mapOf } from '../data/in-parallel.js';
import type { LoadedPair, SkippedPair } from '../data/pair.js';
import { generateGreedy } from '../generate.js';
import { readPicture } from '../image.js';
import { AnswerText, renderPrompt, stopTexts, templateOf, withImage, withQuestion } from '../prompt.js';
import type { RunSection } from './config.js';
import type { ValidationEvent } from './events.js';
import { imageMark, type Example, type ExampleMaker } from './examples.js';
import type { Features, FeatureSource } from './features.js';
import type { ProcessGroup } from './group.js';

/** Held-out samples that are encoded together, and evaluated in one call. */
const atOnce = 32;
/** Pictures to be asked about that are read at the same time. */
const picturesAtOnce = 4;

interface Question {
  picture: string;
  prompt: string | undefined;
  features: Features;
}

export interface ValidationSetup {
  model: NativeModel;
  trainer: NativeTrainer;
  group: ProcessGroup;
  examples: ExampleMaker;
  features: FeatureSource;
  /** The first line of prompts, which answers are asked with where no question is given; undefined in stage 1. */
  prompt: string | undefined;
  endSymbol: string;
  maxTextLength: number;
  contextLength: number;
}

export class Validation {
  readonly #setup: ValidationSetup;
  readonly #samples: NativeTrainingSample[];
  readonly #questions: Question[];
  readonly #pairs: number;

  private constructor(setup: ValidationSetup, samples: NativeTrainingSample[], pairs: number, questions: Question[]) {
    this.#setup = setup;
    this.#samples = samples;
    this.#questions = questions;
    this.#pairs = pairs;
  }

  /**
   * Reads the pairs that are kept back (each process its share of them) and the pictures, and keeps their features. Errors: those of
   * readHoldout and readPicture.
   */
  static async open(
    setup: ValidationSetup,
    loader: LoaderOptions,
    asked: RunSection['valid_answers'],
    skip: (skipped: SkippedPair) => void,
  ): Promise<Validation> {
    const { group, examples, features } = setup;
    const all = await readHoldout(loader, group.rank === 0 ? skip : undefined);
    const usable: { pair: LoadedPair; example: Example }[] = [];
    for (const [i, pair] of all.entries()) {
      if (i % group.size !== group.rank) continue;
      // the same prompt for a pair each time, all prompts among them
      const example = examples.usable(pair, examples.prompts && i % examples.prompts);
      if ('reason' in example) {
        skip({ dataset: pair.dataset, name: pair.name, reason: example.reason });
        continue;
      }
      usable.push({ pair, example });
    }
    const samples: NativeTrainingSample[] = [];
    for (let at = 0; at < usable.length; at += atOnce) {
      const part = usable.slice(at, at + atOnce);
      const made = await features.ofPairs(part.map(({ pair }) => pair));
      samples.push(...part.map(({ example: { ids, targets } }, i) => ({ ids, targets, features: made[i]! })));
    }
    const questions = await mapOf(group.rank === 0 ? asked : [], picturesAtOnce, async ({ picture, prompt }) => {
      const pixels = await readPicture(picture, pictureOptions(loader));
      return { picture, prompt, features: await features.ofPicture(pixels) };
    });
    return new Validation(setup, samples, all.length, questions);
  }

  /** Whether there is anything to validate with, on any process. */
  get empty(): boolean {
    return this.#pairs === 0 && this.#questions.length === 0;
  }

  /** Mean loss over all processes; undefined where nothing is kept back. Errors: those of evaluate, ERR_COLLECTIVE. */
  async loss(): Promise<number | undefined> {
    if (this.#pairs === 0) return undefined;
    let [loss, targets] = [0, 0];
    for (let at = 0; at < this.#samples.length; at += atOnce) {
      const part = await this.#setup.trainer.evaluate(this.#samples.slice(at, at + atOnce));
      loss += part.loss;
      targets += part.targets;
    }
    const [sum, count] = await this.#setup.group.sumNumbers([loss, targets]);
    return count! > 0 ? sum! / count! : undefined; // pairs that all had to be passed over
  }

  /** Greedy answers with the projection as it is now. Errors: those of generate. */
  async answers(): Promise<ValidationEvent['answers']> {
    const { model, trainer, endSymbol, maxTextLength, contextLength } = this.#setup;
    const { eos } = model.info();
    // `</s>` is a token, which stopIds names
    const stop = [...stopTexts, ...(endSymbol === '' || endSymbol === '</s>' ? [] : [endSymbol])];
    const answers: ValidationEvent['answers'] = [];
    for (const { picture, prompt, features } of this.#questions) {
      const parts = this.#prompt(await trainer.project(features), prompt);
      const length = parts.reduce((sum, part) => sum + this.#rows(part), 0);
      const maxTokens = Math.max(1, Math.min(maxTextLength, contextLength - length));
      const { text } = await generateGreedy(model, parts, maxTokens, { stop, stopIds: eos >= 0 ? [eos] : [] });
      const answer = new AnswerText();
      answer.push(text);
      answer.finish();
      const words = this.#setup.prompt?.replace(`<Img>${imageMark}</Img>`, '').trim();
      answers.push({ picture, prompt: prompt ?? words ?? '', text: answer.text });
    }
    return answers;
  }

  /** A question as a chat would ask it; without one, what stands before an answer in training. */
  #prompt(image: NativeImage, question: string | undefined): NativePromptPart[] {
    const { model, examples } = this.#setup;
    if (question !== undefined)
      return renderPrompt(templateOf(model.info().template), withQuestion(withImage([], image), question));
    return examples.parts(0).map((part) => (typeof part === 'object' && 'image' in part ? image : part));
  }

  #rows(part: NativePromptPart): number {
    if (typeof part === 'string') return this.#setup.model.encode(part).length;
    if ('tokens' in part) return part.tokens;
    return 'ids' in part ? part.ids.length : 1;
  }
}

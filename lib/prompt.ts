// Conversation templates, word for word as the original's code has them, and the variants of the model that use them.
import type { NativeImage, NativePromptPart } from './addon.js';
import { MiniGptError } from './errors.js';
import { nearest } from './nearest.js';

/** How turns are written. Literal `<s>` and `</s>` in these words are the tokens; in a user's text they are text. */
export interface Template {
  /** Stands before the first turn. */
  opening: string;
  /** Stand before and after what the user says. */
  user: readonly [string, string];
  /** Stand before and after a finished answer. */
  assistant: readonly [string, string];
  /** Stands where the answer is to come. */
  open: string;
}

const system =
  'Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. ' +
  'Please answer my questions.';

const templateTable = {
  /** Vicuna v0 as the original's last version writes it: roles end in a space. */
  vicuna0: {
    opening: `${system}###`,
    user: ['Human: ', '###'],
    assistant: ['Assistant: ', '###'],
    open: 'Assistant: ',
  },
  /** Of the time when the Vicuna checkpoints were published: the open turn ends without a space. */
  'vicuna0-2023-04': {
    opening: `${system}###`,
    user: ['Human: ', '###'],
    assistant: ['Assistant: ', '###'],
    open: 'Assistant:',
  },
  /** The words of stage 2's training: no system text, a space before the second `###` (another token id). */
  'vicuna0-train': {
    opening: '###',
    user: ['Human: ', ' ###'],
    assistant: ['Assistant: ', '###'],
    open: 'Assistant: ',
  },
  /** Llama 2 as the original writes it: every turn of the user begins with the token `<s>`, no answer ends with `</s>`. */
  llama2: { opening: system, user: ['<s>[INST] ', ''], assistant: [' [/INST] ', ''], open: ' [/INST] ' },
  /** The words of stage 2's training: no system text, answers end in the token `</s>`. */
  'llama2-train': { opening: '', user: ['[INST] ', ''], assistant: [' [/INST] ', '</s>'], open: ' [/INST] ' },
} as const satisfies Record<string, Template>;

export type TemplateName = keyof typeof templateTable;
export const templateNames = Object.keys(templateTable) as TemplateName[];

/** What `minigpt4.variant` of a model file may be; a string says why one is not here. */
const variants: Record<string, { template: TemplateName } | string> = {
  'minigpt4-vicuna0': { template: 'vicuna0' },
  'minigpt4-llama2': { template: 'llama2' },
  'minigpt-v2': 'MiniGPT-v2 (448 pixels, LoRA in the language model, boxes in the answers) is not supported yet',
};

/** A template by its name or by the variant's that uses it. Errors: ERR_UNSUPPORTED (minigpt-v2), ERR_ARGUMENT (unknown). */
export function templateOf(name: string): Template {
  const variant = Object.hasOwn(variants, name) ? variants[name]! : undefined;
  if (typeof variant === 'string')
    throw new MiniGptError('ERR_UNSUPPORTED', `${variant}; expected one of ${templateNames.join(', ')}`);
  const template = variant?.template ?? name;
  if (Object.hasOwn(templateTable, template)) return templateTable[template as TemplateName];
  const meant = nearest(name, templateNames);
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `template: expected one of ${templateNames.join(', ')}, found ${JSON.stringify(name)}` +
      (meant ? ` (did you mean ${meant}?)` : ''),
  );
}

/** Refuses a model file of a variant that is known and not here yet, or not known at all. Errors: ERR_UNSUPPORTED. */
export function checkVariant(name: string): void {
  const variant = Object.hasOwn(variants, name) ? variants[name]! : undefined;
  if (typeof variant === 'object') return;
  throw new MiniGptError(
    'ERR_UNSUPPORTED',
    `the model is of the variant ${JSON.stringify(name)}, expected one of ${Object.keys(variants)
      .filter((known) => typeof variants[known] === 'object')
      .join(', ')}${variant === undefined ? '' : `: ${variant}`}`,
  );
}

/** One thing said. A user's message may begin with a picture. */
export interface Message {
  role: 'user' | 'assistant';
  image?: NativeImage;
  text: string;
}

/** The conversation with a picture added: a message of its own that the next question joins. */
export function withImage(messages: readonly Message[], image: NativeImage): Message[] {
  return [...messages, { role: 'user', image, text: '' }];
}

/** The conversation with a question added: to the message of a picture that nothing was asked about yet, or as a new one. */
export function withQuestion(messages: readonly Message[], text: string): Message[] {
  const last = messages.at(-1);
  if (last?.role === 'user' && last.image && last.text === '') return [...messages.slice(0, -1), { ...last, text }];
  return [...messages, { role: 'user', text }];
}

/**
 * What the language model gets for a conversation whose answer is to come: `<s>`, then text and pictures. Text between two pictures or
 * tokens is one string, because each is tokenized on its own. What users wrote is never read for tokens or pictures.
 */
export function renderPrompt(template: Template, messages: readonly Message[]): NativePromptPart[] {
  const parts: NativePromptPart[] = [{ token: '<s>' }];
  let text = '';
  const flush = () => {
    if (text) parts.push(text);
    text = '';
  };
  const put = (words: string) => {
    // words of the template, which may hold tokens
    for (const piece of words.split(/(<s>|<\/s>)/)) {
      if (piece !== '<s>' && piece !== '</s>') {
        text += piece;
        continue;
      }
      flush();
      parts.push({ token: piece });
    }
  };
  put(template.opening);
  for (const { role, image, text: words } of messages) {
    const [before, after] = template[role];
    if (!image && words === '') {
      // the original takes an empty message for a turn that is still open
      put(role === 'assistant' ? template.open : before);
      continue;
    }
    put(before);
    if (image) {
      text += '<Img>';
      flush();
      parts.push(image);
      text += words === '' ? '</Img>' : '</Img> ';
    }
    text += words;
    put(after);
  }
  put(template.open);
  flush();
  return parts;
}

/** Where an answer ends, in every template: the original stops on both token forms of `###` for Vicuna and Llama 2 alike. */
export const stopTexts: readonly string[] = ['###'];

const echoedRole = 'Assistant:';

/**
 * Cleans an answer while it comes, so that the pieces joined are the answer: what stands before the first stop text (the engine cuts
 * there), without a role's name that the model echoes at the start, and without white space at either end. The original takes what follows
 * the last `Assistant:`; where that stands in the middle, text before it was shown already and stays.
 */
export class AnswerText {
  #held = '';
  #started = false;
  #shown = '';

  /** The part of the answer that is certain now. */
  push(text: string): string {
    this.#held += text;
    if (!this.#started) {
      this.#held = this.#held.trimStart();
      while (this.#held.startsWith(echoedRole)) this.#held = this.#held.slice(echoedRole.length).trimStart();
      if (echoedRole.startsWith(this.#held)) return '';
      this.#started = true;
    }
    return this.#show();
  }

  /** The rest of it. */
  finish(): string {
    return this.#show();
  }

  get text(): string {
    return this.#shown;
  }

  #show(): string {
    const certain = this.#held.trimEnd();
    this.#held = this.#held.slice(certain.length);
    this.#shown += certain;
    return certain;
  }
}

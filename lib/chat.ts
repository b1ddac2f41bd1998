// A conversation about pictures: each turn sees the pictures and all turns before it.
import type { NativeImage, NativeSequence } from './addon.js';
import { MiniGptError } from './errors.js';
import { generate } from './generate.js';
import { heed, type Picture } from './image.js';
import type { ChatModel } from './model.js';
import { checkOptions, generateRules, imageRules, show, type ChatOptions, type GenerateOptions } from './options.js';
import { renderPrompt, withImage, withQuestion, type Message, type Template } from './prompt.js';
import { Run } from './run.js';

/** A turn as `history` shows it. */
export interface ChatTurn {
  role: 'user' | 'assistant';
  /** Empty where a picture was given and nothing asked about it yet. */
  text: string;
  /** Whether a picture stands before the text. */
  image: boolean;
}

/**
 * Made by `model.chat()`. One thing at a time: a picture or a question while another one is at work is refused (ERR_ARGUMENT). What fails
 * or is aborted leaves the conversation as it was.
 */
export class Chat {
  readonly #model: ChatModel;
  readonly #template: Template;
  readonly #defaults: ChatOptions;
  #messages: readonly Message[] = [];
  #sequence: NativeSequence | undefined;
  #busy: { what: string; stop: AbortController } | undefined;
  #newImages: NativeImage[] = []; // encoded since the last answer
  #closed = false;

  /** Use `model.chat()`. */
  constructor(model: ChatModel, template: Template, defaults: ChatOptions) {
    this.#model = model;
    this.#template = template;
    this.#defaults = defaults;
  }

  /** What was said so far. */
  get history(): ChatTurn[] {
    return this.#messages.map(({ role, text, image }) => ({ role, text, image: image !== undefined }));
  }

  /**
   * Shows a picture; the next question is about it. Errors: as `readPicture`, and ERR_ARGUMENT (busy), ERR_ABORTED, ERR_CLOSED.
   */
  async image(picture: Picture, options?: { signal?: AbortSignal }): Promise<void> {
    heed(picture);
    const checked = checkOptions(imageRules, options, 'image()');
    const done = this.#begin('a picture is being read: await chat.image() first');
    const { stop } = this.#busy!;
    const before = this.#messages;
    try {
      const signal = checked.signal ? AbortSignal.any([checked.signal, stop.signal]) : stop.signal;
      const image = await this.#model.encodePicture(picture, signal);
      if (this.#messages !== before || this.#closed) return; // restarted meanwhile
      this.#messages = withImage(before, image);
      this.#newImages.push(image);
    } finally {
      done();
    }
  }

  /**
   * Asks; the answer joins the conversation when it is complete. The run rejects with ERR_ARGUMENT (busy, or wrong options),
   * ERR_CONTEXT_FULL, ERR_ABORTED, ERR_CLOSED, ERR_OUT_OF_MEMORY, ERR_FILE_CHANGED.
   */
  ask(text: string, options?: GenerateOptions): Run {
    const startedAt = performance.now();
    const signal = options?.signal;
    return new Run(
      async (emit, aborted) => {
        const done = this.#begin('an answer is still coming: await it first, also after aborting it');
        const { stop } = this.#busy!;
        try {
          if (typeof text !== 'string' || !/\S/.test(text)) {
            throw new MiniGptError('ERR_ARGUMENT', `ask(): expected a question that is not empty, found ${show(text)}`);
          }
          const checked = checkOptions(generateRules, options, 'ask()');
          const before = this.#messages;
          const asked = withQuestion(before, text);
          const sequence = (this.#sequence ??= this.#model.openSequence());
          const answer = await generate(sequence, {
            prompt: renderPrompt(this.#template, asked),
            options: { ...this.#defaults, ...checked },
            info: { eos: this.#model.eos },
            startedAt,
            encodeMs: this.#newImages.reduce((sum, image) => sum + image.encodeMs, 0),
            emit,
            signal: AbortSignal.any([aborted, stop.signal]),
          });
          if (this.#messages === before && !this.#closed) {
            this.#messages = [...asked, { role: 'assistant', text: answer.text }];
            this.#newImages = [];
          }
          return answer;
        } finally {
          done();
        }
      },
      signal instanceof AbortSignal ? signal : undefined,
    );
  }

  /** Forgets everything that was said and shown; what is at work rejects with ERR_ABORTED. */
  restart(): void {
    this.#refuseClosed();
    this.#forget();
  }

  /** Ends the conversation and frees its place; what is at work rejects with ERR_ABORTED. Closing again is harmless. */
  close(): void {
    this.#closed = true;
    this.#forget();
    this.#sequence?.close();
    this.#sequence = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #forget(): void {
    this.#messages = [];
    this.#newImages = [];
    if (!this.#busy) return;
    this.#busy.stop.abort();
    this.#busy = undefined;
    // the aborted work may need the sequence for one more token: the next question gets another one
    this.#sequence?.close();
    this.#sequence = undefined;
  }

  /** Takes the conversation for one piece of work; what it returns gives it back. */
  #begin(what: string): () => void {
    this.#refuseClosed();
    if (this.#busy) throw new MiniGptError('ERR_ARGUMENT', `the chat does one thing at a time, and ${this.#busy.what}`);
    const mine = { what, stop: new AbortController() };
    this.#busy = mine;
    return () => {
      if (this.#busy === mine) this.#busy = undefined;
    };
  }
  #refuseClosed(): void {
    if (this.#closed)
      throw new MiniGptError('ERR_CLOSED', 'the chat is closed: expected an open one, model.chat() opens another');
  }
}

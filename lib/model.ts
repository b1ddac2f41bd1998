// The loaded model: describes pictures, opens chats, gives its tokenizer.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  addon,
  packageRoot,
  type MemoryHolding,
  type NativeImage,
  type NativeLoadOptions,
  type NativeModel,
  type NativeModelInfo,
  type NativeSequence,
} from './addon.js';
import { Chat } from './chat.js';
import { MiniGptError, abortedError } from './errors.js';
import { generate } from './generate.js';
import { heed, readPicture, type Picture } from './image.js';
import { checkLoad } from './load-options.js';
import {
  chatRules,
  checkOptions,
  describeRules,
  encodeRules,
  show,
  type ChatOptions,
  type DescribeOptions,
  type LoadOptions,
} from './options.js';
import { checkVariant, renderPrompt, templateOf, withImage, withQuestion, type Template } from './prompt.js';
import { Run, untilAborted } from './run.js';

/** Ids that are decoded at once; no model has so many positions. */
const mostIds = 2 ** 20;

export const defaultPrompt = 'Describe this image in detail.';

/** The model inside the package: a miniature that knows simple scenes of pictograms. */
export const embeddedModelPath = join(packageRoot, 'models', 'minigpt4-miniature.gguf');

export interface ModelInfo extends Omit<NativeModelInfo, 'memory'> {
  /** The file that was loaded as `model`. */
  path: string;
  /** Whether it is the miniature inside the package, with its own language model. */
  embedded: boolean;
}

/** What Chat needs of its model. */
export interface ChatModel {
  encodePicture(picture: Picture, signal: AbortSignal): Promise<NativeImage>;
  openSequence(): NativeSequence;
  readonly eos: number;
}

/** A MiniGPT-4 in memory. Close it when done; one that is forgotten is freed with the garbage. */
export class MiniGPT4 {
  readonly #native: NativeModel;
  readonly #info: ModelInfo;
  readonly #options: LoadOptions;
  #closing: Promise<void> | undefined;

  private constructor(native: NativeModel, path: string, options: LoadOptions) {
    this.#native = native;
    const { memory: _, ...info } = native.info();
    const embedded = path === embeddedModelPath && options.llm === undefined && options.projection === undefined;
    this.#info = { ...info, template: options.template ?? info.template, path, embedded };
    this.#options = options;
  }

  /**
   * Reads the model's files into memory. Errors: ERR_ARGUMENT, ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_MISSING_TENSOR, ERR_SHAPE,
   * ERR_UNSUPPORTED, ERR_OUT_OF_MEMORY, ERR_NO_BACKEND, ERR_CUDA. What `onProgress` throws is what the promise rejects with, as it is, once the
   * files are read.
   */
  static async load(options?: LoadOptions): Promise<MiniGPT4> {
    const checked = checkLoad(options, 'MiniGPT4.load()');
    const { template, maxPixels: _, model, llm, projection, onProgress, ...rest } = checked;
    if (template !== undefined) templateOf(template);
    const path = toPath(model ?? (process.env['MINIGPT4_MODEL'] || embeddedModelPath));
    const request: NativeLoadOptions = { model: path, ...rest };
    if (llm !== undefined) request.llm = toPath(llm);
    if (projection !== undefined) request.projection = toPath(projection);
    const listener = onProgress && heard(onProgress);
    if (listener) request.onProgress = listener.call;
    const native = await addon.loadModel(request).catch((error: unknown) => {
      listener?.check();
      throw error;
    });
    try {
      listener?.check();
      const loaded = new MiniGPT4(native, path, checked);
      // a file of a later variant is refused here, not at the first question
      checkVariant(loaded.info.variant);
      templateOf(loaded.info.template);
      return loaded;
    } catch (error) {
      await native.close();
      throw error;
    }
  }

  /** What was loaded. */
  get info(): ModelInfo {
    return this.#info;
  }

  /** Bytes held now and at most, by owner. Errors: ERR_CLOSED. */
  get memory(): MemoryHolding[] {
    return this.#open().info().memory;
  }

  /**
   * Answers one question about a picture. The run rejects with ERR_ARGUMENT, ERR_FILE_NOT_FOUND, ERR_IMAGE, ERR_CONTEXT_FULL, ERR_ABORTED,
   * ERR_CLOSED, ERR_OUT_OF_MEMORY, ERR_FILE_CHANGED (a model file in the CPU's layout was truncated or written to).
   */
  describe(picture: Picture, options?: DescribeOptions): Run {
    const startedAt = performance.now();
    heed(picture);
    const signal = options?.signal;
    return new Run(
      async (emit, aborted) => {
        const checked = checkOptions(describeRules, options, 'describe()');
        const template = this.#template(checked.template);
        const image = await this.#encodePicture(picture, aborted);
        const sequence = this.#open().openSequence();
        try {
          const messages = withQuestion(withImage([], image), checked.prompt ?? defaultPrompt);
          return await generate(sequence, {
            prompt: renderPrompt(template, messages),
            options: checked,
            info: this.#info,
            startedAt,
            encodeMs: image.encodeMs,
            emit,
            signal: aborted,
          });
        } finally {
          sequence.close();
        }
      },
      signal instanceof AbortSignal ? signal : undefined,
    );
  }

  /** Opens a conversation; the options are the defaults of its answers. Errors: ERR_ARGUMENT, ERR_CLOSED. */
  chat(options?: ChatOptions): Chat {
    const checked = checkOptions(chatRules, options, 'chat()');
    this.#open();
    const model: ChatModel = {
      encodePicture: (picture, signal) => this.#encodePicture(picture, signal),
      openSequence: () => this.#open().openSequence(),
      eos: this.#info.eos,
    };
    return new Chat(model, this.#template(checked.template), checked);
  }

  /** Token ids of a text on its own, without `<s>`; `specials`: `<s>` and `</s>` in it are tokens. Errors: ERR_CLOSED, ERR_ARGUMENT. */
  encode(text: string, options?: { specials?: boolean }): number[] {
    if (typeof text !== 'string')
      throw new MiniGptError('ERR_ARGUMENT', `encode(): expected a text, found ${show(text)}`);
    const { specials } = checkOptions(encodeRules, options, 'encode()');
    return Array.from(this.#open().encode(text, specials ?? false));
  }

  /** The text of token ids. Errors: ERR_CLOSED, ERR_ARGUMENT (an id that the vocabulary has not). */
  decode(ids: ArrayLike<number>): string {
    const length: unknown = typeof ids === 'object' && ids !== null ? ids.length : undefined;
    if (typeof length !== 'number' || !Number.isInteger(length) || length < 0 || length > mostIds) {
      const found = typeof length === 'number' ? `a length of ${length}` : show(ids);
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `decode(): expected an array of at most ${mostIds} token ids, found ${found}`,
      );
    }
    const list = Array.from(ids);
    const wrong = list.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= this.#info.vocabulary);
    if (wrong >= 0) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `decode(): expected token ids from 0 to ${this.#info.vocabulary - 1}, found ${show(list[wrong])}`,
      );
    }
    return this.#open().decode(Int32Array.from(list));
  }

  /** Ends everything that runs (ERR_CLOSED) and frees the memory. Closing again is harmless and awaits the same end. */
  close(): Promise<void> {
    return (this.#closing ??= this.#native.close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #open(): NativeModel {
    if (this.#closing) throw new MiniGptError('ERR_CLOSED', 'the model is closed: expected an open one, load it again');
    return this.#native;
  }

  #template(name: string | undefined): Template {
    return templateOf(name ?? this.#info.template);
  }

  async #encodePicture(picture: Picture, signal: AbortSignal): Promise<NativeImage> {
    this.#open();
    const { maxPixels } = this.#options;
    const { data, width, height } = await readPicture(
      picture,
      maxPixels === undefined ? { signal } : { maxPixels, signal },
    );
    if (signal.aborted) throw abortedError(signal);
    let abort = () => {};
    const image = this.#open().encodeImage(data, width, height, (end) => (abort = end));
    return untilAborted(image, signal, abort);
  }
}

/** The caller's listener; what it throws is the caller's own, which `check` throws once more, and it is called no further. */
function heard(listener: (fraction: number) => void): { call(fraction: number): void; check(): void } {
  let thrown: { error: unknown } | undefined;
  return {
    call(fraction) {
      if (thrown) return;
      try {
        listener(fraction);
      } catch (error) {
        thrown = { error };
      }
    },
    check() {
      if (thrown) throw thrown.error;
    },
  };
}

function toPath(file: string | URL): string {
  try {
    return file instanceof URL || file.startsWith('file:') ? fileURLToPath(file) : file;
  } catch (error) {
    throw new MiniGptError('ERR_ARGUMENT', `expected a path or a file: URL, found ${String(file)}`, { cause: error });
  }
}

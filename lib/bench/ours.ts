// Our side of a measurement, in a process of its own so that its memory is its own.
import { join } from 'node:path';
import { addon, packageRoot, type NativeModel, type NativePromptPart } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { generateGreedy } from '../generate.js';
import { readPicture } from '../image.js';
import { serve } from './serve.js';
import { someIds, type Test } from './measured-test.js';

/** Tokens around the picture when the real vocabulary cuts "Describe this image in detail." in Vicuna's template. */
const BEFORE_PICTURE = 42;
const AFTER_PICTURE = 16;
const PICTURE = join(packageRoot, 'models', 'example.jpg');

let model: NativeModel | undefined;
let picture: { data: Uint8Array; width: number; height: number } | undefined;

const ids = (of: NativeModel, count: number, turn: number): NativePromptPart => ({
  ids: Int32Array.from(someIds(count, of.info().vocabulary, turn)),
});

async function run(test: Test, turn: number): Promise<number> {
  if (!model) throw new MiniGptError('ERR_INTERNAL', 'a test was asked for before a model');
  const loaded = model;
  switch (test.kind) {
    case 'prompt':
      return (await generateGreedy(loaded, [ids(loaded, test.count, turn)], 1)).prefillMs;
    case 'generate': // the first token comes from the prompt's own pass
      return (await generateGreedy(loaded, [ids(loaded, 1, turn)], test.count + 1)).decodeMs;
    case 'chats': {
      const answers = await Promise.all(
        Array.from({ length: test.chats }, (_, chat) =>
          generateGreedy(loaded, [ids(loaded, 1, turn * test.chats + chat)], test.count + 1),
        ),
      );
      return Math.max(...answers.map(({ decodeMs }) => decodeMs));
    }
    case 'encode':
    case 'vit': {
      picture ??= await readPicture(PICTURE);
      const { encodeMs, vitMs } = await loaded.encodeImage(picture.data, picture.width, picture.height);
      if (test.kind === 'encode') return encodeMs;
      if (vitMs === undefined) throw new MiniGptError('ERR_INTERNAL', "the ViT's own time is known on the CPU alone");
      return vitMs;
    }
    case 'firstToken': {
      const began = performance.now();
      const { data, width, height } = await readPicture(PICTURE);
      const image = await loaded.encodeImage(data, width, height);
      const prompt = [ids(loaded, BEFORE_PICTURE, turn), image, ids(loaded, AFTER_PICTURE, turn + 1)];
      const askedAt = performance.now();
      return askedAt - began + (await generateGreedy(loaded, prompt, 1)).firstTokenMs;
    }
  }
}

serve({
  async load({ llm, vision, threads, level, contextLength }) {
    const began = performance.now();
    model = await addon.loadModel({
      ...(llm === undefined ? {} : { llm }),
      ...(vision === undefined ? {} : { model: vision }),
      ...(level === undefined ? {} : { cpuLevel: level }),
      threads,
      contextLength,
      cacheLength: contextLength,
    });
    return performance.now() - began;
  },
  run,
});

// Reads an evaluation folder: scenes.json with its prompts and scenes, and the pictures in scenes/.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { systemError } from '../formats/input-file.js';
import { readJson } from '../formats/hugging-face.js';
import type { Scene } from './scenes.js';

const words = z.string().min(1);
const rules = z.object({
  prompts: z.array(words).min(1),
  scenes: z
    .array(
      z.object({
        file: words.regex(/^[^/\\]+$/, 'expected a name without a folder'),
        style: words,
        main: words,
        objects: z.array(z.object({ name: words })).min(1),
        background: z.object({ colour: words }),
      }),
    )
    .min(1),
});

/** A scene and what is asked about it. */
export interface AskedScene extends Scene {
  /** The picture's path. */
  picture: string;
  prompt: string;
}

/**
 * The scenes in their order; scene number i is asked prompt i modulo their number, also where fewer are taken later.
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (with the entry that is wrong).
 */
export async function readScenes(folder: string): Promise<AskedScene[]> {
  const path = join(folder, 'scenes.json');
  const found = await stat(path).catch((error: unknown) => {
    const failure = systemError(path, error);
    if (failure.code !== 'ERR_FILE_NOT_FOUND') throw failure;
  });
  if (!found?.isFile()) {
    throw new MiniGptError(
      'ERR_FILE_NOT_FOUND',
      `${folder}: expected a folder with scenes.json and scenes/, found no scenes.json`,
    );
  }
  const parsed = rules.safeParse(await readJson(path));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: ${issue.path.join('.') || 'the whole'}: ${issue.message}`);
  }
  const { prompts, scenes } = parsed.data;
  return scenes.map((scene, i) => {
    if (!scene.objects.some(({ name }) => name === scene.main))
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path}: scenes.${i}: main is ${scene.main}, which is none of its objects`,
      );
    return { ...scene, picture: join(folder, 'scenes', scene.file), prompt: prompts[i % prompts.length]! };
  });
}

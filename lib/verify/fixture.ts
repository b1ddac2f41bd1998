// A fixture directory: small checkpoints in the published formats, pictures, and what the reference says of every stage.
import { readFile, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { openSafetensors } from '../formats/safetensors.js';
import type { Checkpoint } from '../formats/tensor.js';

const ids = z.array(z.number().int().nonnegative());
/** Six steps of AdamW on one batch, picture i with answer i. */
const trainingRules = z.object({
  /** Before and after the picture, `<s>` left out; null: the picture stands alone. */
  prompt_ids: z.tuple([ids, ids]).nullable(),
  answer_ids: z.array(ids.min(1)).min(1),
  weight_decay: z.number(),
  losses: z.array(z.number()).min(1),
  learning_rates: z.array(z.number()).min(1),
});
export type TrainingFixture = z.infer<typeof trainingRules>;
const expectedRules = z.object({
  chat: z.object({
    before_image: z.string(),
    after_image: z.string(),
    segment_ids: z.tuple([ids, ids]),
    greedy_ids: ids.min(1),
  }),
  tokenizer: z.array(z.object({ text: z.string(), ids })),
  stage1: trainingRules.optional(),
  stage2: trainingRules.optional(),
});

export interface Fixture {
  directory: string;
  /** Paths; qformer is absent in the variant without one. */
  vit: string;
  qformer?: string;
  projection: string;
  config?: string;
  /** Language models: Hugging Face folders and GGUF files that are to give the same answers; at least one. */
  llms: string[];
  images: string[];
  expected: z.infer<typeof expectedRules>;
  /** expected.safetensors, and quants.safetensors where it is there. */
  tensors: Checkpoint;
  quants?: Checkpoint;
  close(): Promise<void>;
}

/** Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, both saying what a fixture directory has to hold. */
export async function openFixture(directory: string): Promise<Fixture> {
  const entries = await readdir(directory).catch((error: unknown) => {
    throw new MiniGptError(
      'ERR_FILE_NOT_FOUND',
      `${directory}: expected a fixture directory, found none that can be read`,
      { cause: error },
    );
  });
  const has = (name: string) => entries.includes(name);
  const need = (name: string) => {
    if (!has(name))
      throw new MiniGptError(
        'ERR_FILE_NOT_FOUND',
        `${directory} is no fixture directory: expected ${name} in it, found ${entries.slice(0, 8).join(', ') || 'nothing'}`,
      );
    return join(directory, name);
  };
  const llms: string[] = [];
  for (const name of entries.sort()) {
    const path = join(directory, name);
    const isFolder = (await stat(path)).isDirectory() && (await readdir(path)).includes('tokenizer.model');
    if (isFolder || name.endsWith('.gguf')) llms.push(path);
  }
  llms.sort((a, b) => Number(a.endsWith('.gguf')) - Number(b.endsWith('.gguf'))); // stable: the first folder is the model's own
  if (llms.length === 0)
    throw new MiniGptError(
      'ERR_FILE_NOT_FOUND',
      `${directory}: expected a language model (a folder with tokenizer.model, or a .gguf), found none`,
    );

  const expectedPath = need('expected.json');
  let json: unknown;
  try {
    json = JSON.parse(await readFile(expectedPath, 'utf8'));
  } catch (error) {
    throw new MiniGptError('ERR_FILE_FORMAT', `${expectedPath} is no JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const parsed = expectedRules.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new MiniGptError('ERR_FILE_FORMAT', `${expectedPath}: ${issue.path.join('.')}: ${issue.message}`);
  }
  const images = (await readdir(need('images'))).sort().map((name) => join(directory, 'images', name));
  const paths = {
    vit: need('eva_vit_g.pth'),
    projection: need('pretrained_minigpt4.pth'),
    tensors: need('expected.safetensors'),
  };
  const tensors = await openSafetensors(paths.tensors);
  const quants = has('quants.safetensors') ? await openSafetensors(join(directory, 'quants.safetensors')) : undefined;
  return {
    directory,
    vit: paths.vit,
    projection: paths.projection,
    llms,
    images,
    expected: parsed.data,
    tensors,
    ...(has('blip2_pretrained_flant5xxl.pth') ? { qformer: need('blip2_pretrained_flant5xxl.pth') } : {}),
    ...(has('config.json') ? { config: need('config.json') } : {}),
    ...(quants ? { quants } : {}),
    close: async () => {
      await tensors.close();
      await quants?.close();
    },
  };
}

/** A tensor's bytes or float32 numbers. Errors: ERR_MISSING_TENSOR, ERR_FILE_FORMAT (another number type). */
export async function bytesOf(checkpoint: Checkpoint, name: string): Promise<Uint8Array> {
  return (await tensorOf(checkpoint, name, 'u8')).read();
}

export async function floatsOf(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const bytes = await (await tensorOf(checkpoint, name, 'f32')).read();
  return new Float32Array(bytes.slice().buffer); // a copy begins where a float may
}

async function tensorOf(checkpoint: Checkpoint, name: string, dtype: 'u8' | 'f32') {
  const tensor = checkpoint.tensors.get(name);
  if (!tensor)
    throw new MiniGptError('ERR_MISSING_TENSOR', `${checkpoint.path}: expected a tensor ${name}, found none`);
  if (tensor.dtype !== dtype)
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${basename(checkpoint.path)}: ${name}: expected type ${dtype}, found ${tensor.dtype}`,
    );
  return tensor;
}

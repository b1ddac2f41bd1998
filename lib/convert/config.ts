// What no tensor's shape tells: head counts, image size, which blocks are used. From --config, or known for published sizes.
import { z } from 'zod';
import { MiniGptError } from '../errors.js';
import { readJson } from '../formats/hugging-face.js';

const size = z
  .number()
  .int()
  .positive()
  .max(1 << 24);
const epsilon = z.number().positive().max(0.1);

const rules = z.object({
  vit: z
    .object({
      image_size: size,
      patch_size: size,
      width: size,
      heads: size,
      depth: size.max(1024),
      mlp: size,
      eps: epsilon,
      ln_vision_eps: epsilon,
    })
    .partial()
    .optional(),
  qformer: z
    .object({
      width: size,
      heads: size,
      depth: size.max(1024),
      mlp: size,
      queries: size,
      cross_every: size,
      eps: epsilon,
    })
    .partial()
    .nullable()
    .optional(),
});

export type SizeConfig = z.infer<typeof rules>;

/** Reads --config. Errors: those of readJson, ERR_FILE_FORMAT with the entry that is wrong. */
export async function readSizeConfig(path: string): Promise<SizeConfig> {
  const parsed = rules.safeParse(await readJson(path));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new MiniGptError('ERR_FILE_FORMAT', `${path}: ${issue.path.join('.') || 'the whole'}: ${issue.message}`);
}

/** Sizes that were published, by width: head counts, and how many of the ViT's blocks are used. */
export const PUBLISHED = {
  /** EVA-CLIP ViT-g/14. Its file holds 40 blocks; BLIP-2 reads the output of the last but one. */
  vit: { width: 1408, heads: 16, depth: 39 },
  /** bert-base-uncased. */
  qformer: { width: 768, heads: 12 },
} as const;

/** Fails where --config says something else than the tensors. */
export function agree(what: string, stated: number | undefined, found: number, file: string): void {
  if (stated !== undefined && stated !== found) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `the configuration says ${what} ${stated}, but the tensors of ${file} have ${found}`,
    );
  }
}

/** A head count that divides the width. */
export function headCount(
  part: string,
  entry: string,
  stated: number | undefined,
  width: number,
  published: { width: number; heads: number },
): number {
  const heads = stated ?? (width === published.width ? published.heads : undefined);
  if (heads === undefined) {
    throw new MiniGptError(
      'ERR_ARGUMENT',
      `the ${part} has the width ${width}, which is not a published size (${published.width}): no tensor tells its head count; ` +
        `give it with --config, as ${entry}.heads`,
    );
  }
  if (width % heads)
    throw new MiniGptError(
      'ERR_SHAPE',
      `the ${part} of width ${width} cannot have ${heads} heads: ${width} is no multiple of ${heads}`,
    );
  return heads;
}

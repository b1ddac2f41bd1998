// Plans the projection, and tells the classic mix-ups of checkpoints apart.
import type { GgufKey } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { PUBLISHED, type SizeConfig } from './config.js';
import { u32 } from './keys.js';
import { planned, type PlannedTensor } from './rows.js';
import { partType, storedType } from './types.js';
import type { Weights } from './weights.js';

/** Without a Q-Former the original lays this many neighbouring patches side by side. */
export const PATCHES_SIDE_BY_SIDE = 4;

/** Language models by width, as people call them. */
const LLM_NAMES: Readonly<Record<number, string>> = { 4096: ' (7B)', 5120: ' (13B)' };
const named = (width: number): string => `${width}${LLM_NAMES[width] ?? ''}`;

export interface ProjectionPlan {
  input: number;
  output: number;
  keys: GgufKey[];
  tensors: PlannedTensor[];
}

/** What is known of the parts around it; undefined where they are not converted together. */
export interface Neighbours {
  vitWidth?: number | undefined;
  /** null: the variant without a Q-Former. */
  qformerWidth?: number | null | undefined;
  llm?: { width: number; path: string } | undefined;
}

/** Errors: ERR_MISSING_TENSOR, ERR_SHAPE (the mix-ups), ERR_UNSUPPORTED (MiniGPT-v2), ERR_ARGUMENT (no way to tell how it is used). */
export function planProjection(weights: Weights, around: Neighbours, config: SizeConfig): ProjectionPlan {
  const { path } = weights;
  for (const name of weights.checkpoint.tensors.keys()) {
    if (name.includes('.lora_A.')) {
      throw new MiniGptError(
        'ERR_UNSUPPORTED',
        `${path} is a MiniGPT-v2 checkpoint (it changes the language model by ${name}); expected MiniGPT-4's`,
      );
    }
  }
  const [output, input] = weights.measure('llama_proj.weight', 2) as [number, number];
  const perToken = patchesPerToken(path, input, around, config);
  if (around.llm && around.llm.width !== output) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `the projection ${path} gives vectors of ${named(output)}, but the language model ${around.llm.path} has the width ${named(around.llm.width)}; ` +
        'they belong to different sizes of MiniGPT-4',
    );
  }
  const shape = [output, input];
  const sources = [{ role: weights.role, file: weights.find('llama_proj.weight')!.file }];
  return {
    input,
    output,
    keys: [
      u32('minigpt4.projection.input_length', input),
      u32('minigpt4.projection.output_length', output),
      u32('minigpt4.projection.patches_per_token', perToken),
    ],
    tensors: [
      planned(
        'mm.weight',
        shape,
        storedType(partType('projection', 'f32'), shape),
        sources,
        weights.take('llama_proj.weight', shape),
      ),
      planned('mm.bias', [output], 'f32', sources, weights.take('llama_proj.bias', [output])),
    ],
  };
}

/** 1 with a Q-Former, else the number of patches side by side. */
function patchesPerToken(
  path: string,
  input: number,
  { vitWidth, qformerWidth }: Neighbours,
  config: SizeConfig,
): number {
  const sideBySide = vitWidth === undefined ? undefined : vitWidth * PATCHES_SIDE_BY_SIDE;
  if (typeof qformerWidth === 'number') {
    if (input === qformerWidth) return 1;
    const meant =
      input === sideBySide
        ? ': it was trained without a Q-Former (as the Llama 2 checkpoint is); leave --qformer out, or take the Vicuna one'
        : '';
    throw new MiniGptError(
      'ERR_SHAPE',
      `the projection ${path} takes vectors of ${input}, but the Q-Former gives ${qformerWidth}${meant}`,
    );
  }
  if (qformerWidth === null && sideBySide !== undefined) {
    if (input === sideBySide) return PATCHES_SIDE_BY_SIDE;
    const meant =
      input === (config.qformer?.width ?? PUBLISHED.qformer.width)
        ? ': it was trained with a Q-Former; give its file with --qformer'
        : '';
    throw new MiniGptError(
      'ERR_SHAPE',
      `the projection ${path} takes vectors of ${input}, but ${PATCHES_SIDE_BY_SIDE} patches side by side have ${sideBySide} (ViT width ${vitWidth})${meant}`,
    );
  }
  // The projection alone: only sizes tell.
  if (input === (config.qformer?.width ?? PUBLISHED.qformer.width)) return 1;
  if (input === PATCHES_SIDE_BY_SIDE * (config.vit?.width ?? PUBLISHED.vit.width)) return PATCHES_SIDE_BY_SIDE;
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `the projection ${path} takes vectors of ${input}, which is not a published size (${PUBLISHED.qformer.width} with a Q-Former, ` +
      `${PATCHES_SIDE_BY_SIDE * PUBLISHED.vit.width} without); give the sizes with --config, as qformer.width or vit.width`,
  );
}

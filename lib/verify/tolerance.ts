// How far numbers may be from the reference's, by what the device rounds to and what the weights are.
import type { NativeModelInfo } from '../addon.js';
import type { WritableType } from '../convert/options.js';

export interface Tolerance {
  /** Of a stage of the model, relative to its largest magnitude, where both sides have the same weights. */
  stage: number;
  /** Of losses and gradients, likewise. */
  gradient: number;
  /** Of a gradient's direction: 1 - cosine. */
  direction: number;
  /** Of the direction in which AdamW has moved the projection: 1 - cosine. */
  movement: number;
  /** Whether each value that AdamW has moved is as near as a stage's values are. */
  movedValues: boolean;
  /** What the numbers come from. */
  because: string;
}

/**
 * CPU, float weights: both sides compute in float32 (24 bits) but add in another order: a sum of N = 704 products (the longest of the fixtures)
 * differs by about sqrt(N) / 2^24 = 1.6e-6 of its largest term, some 20 such sums follow each other, and norms and softmax enlarge a
 * difference by a factor of 2 to 5. That gives up to 1e-4; twice that is allowed. A wrong epsilon, a swapped head or a missing bias is
 * at least ten times as much. On AMX a float weight and what it is multiplied with are two bfloat16 each (16 bits and more): a sum is within
 * some 2^-17 = 7.6e-6 of its usual size, 20 of them as a random walk within 3.4e-5, and norms and softmax leave up to 1.7e-4: the same is allowed.
 */
const float32 = 2e-4;

/** What `NativeModelInfo.device` begins with where float weights are multiplied as bfloat16: on AMX, and on its model in tests. */
const amx = 'cpu amx';

/**
 * On a GPU. F32 weights: attention rounds q, k, v and p to f16 (11 bits, 2^-11 = 4.9e-4 each), the rest is float32. F16: every product's
 * activations are rounded to f16 as well; some 20 such roundings follow each other and norms enlarge them by 2 to 5. BF16 has 3 bits less than
 * F16: 8 times as much. Quantized: the products are exact integers on both sides, but where a rounding of an activation falls on the other
 * side of a half, one of its 255 steps moves.
 */
const gpuStage: Partial<Record<WritableType, number>> = { f32: 4e-3, f16: 8e-3, bf16: 6.4e-2 };
const gpuStageQuantized = 3e-2;

/** Gradients on a GPU go through bfloat16 products (2^-9 = 2e-3 each), three layers of them; through F32 weights in float32. */
const gpuGradient = { f32: 2e-3, others: 2e-2 };

/** `info`: of the model that computes; a GPU's numbers count where one does a part of it. */
export function tolerance(
  info: Pick<NativeModelInfo, 'device' | 'gpuLayers' | 'visionDevice'>,
  type: WritableType,
): Tolerance {
  const onAmx = info.device.startsWith(amx);
  const onGpu = info.gpuLayers > 0 || info.visionDevice === 'gpu';
  const stage = onGpu ? (gpuStage[type] ?? gpuStageQuantized) : float32;
  const gradient = onGpu ? (type === 'f32' ? gpuGradient.f32 : gpuGradient.others) : float32;
  return {
    stage,
    gradient,
    // values and errors alike are mostly small beside their largest, so a typical error is a share e of a typical value too: it turns a
    // vector by e, and 1 - cosine is e² / 2
    direction: Math.max(float32, gradient ** 2 / 2),
    // AdamW moves every value by about the rate, however small its gradient, and what is smaller than its error may go anywhere. Of values that
    // are spread normally 0.8 e are below a share e of a typical one; one of n that goes the other way adds 2 / n to 1 - cosine
    movement: Math.max(float32, 1.6 * gradient),
    movedValues: !onGpu && !onAmx,
    because: because(onGpu, onAmx, type),
  };
}

function because(onGpu: boolean, onAmx: boolean, type: WritableType): string {
  const inHalves = onAmx && (type === 'f32' || type === 'f16' || type === 'bf16');
  if (!onGpu) return `${inHalves ? 'float weights as two bfloat16, ' : ''}float32 sums in another order`;
  if (type === 'f32') return 'attention in f16, the rest in float32';
  if (type === 'f16' || type === 'bf16') return `activations in ${type}, attention in f16, gradients in bf16`;
  return 'activations in 8 bits, attention in f16, gradients in bf16';
}

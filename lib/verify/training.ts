// The training stages of a fixture: loss, gradient, and the projection after its steps of AdamW.
import type { NativeModel, NativeTrainingSample, ProjectionValues } from '../addon.js';
import type { WritableType } from '../convert/options.js';
import { MiniGptError } from '../errors.js';
import type { Checkpoint } from '../formats/tensor.js';
import type { DecodedPicture } from '../image.js';
import { floatsOf, type TrainingFixture } from './fixture.js';
import { relativeError, result, worstCosineDistance, type StageResult } from './measure.js';
import type { Tolerance } from './tolerance.js';

/**
 * How far a gradient through quantized weights may point from the float32 one. Q8_0 rounds weights and activations by some 0.5 % of a
 * typical value, the 4-bit types by some 8 %; over two or three layers the angles add up, to a cosine of about 1 - n s² / 2.
 */
const gradientDistance: Partial<Record<WritableType, number>> = { q8_0: 0.01, q4_0: 0.05 };

/**
 * Trains the model's projection on the fixture's batch, picture i with answer i. `tolerance` is what weights without loss are allowed. Errors: those of the trainer; ERR_FILE_FORMAT (fewer pictures than answers, fewer rates than losses).
 */
export async function verifyTraining(
  model: NativeModel,
  stage: string,
  fixture: TrainingFixture,
  pictures: readonly DecodedPicture[],
  tensors: Checkpoint,
  type: WritableType,
  tolerance: Tolerance,
): Promise<StageResult[]> {
  const { answer_ids, learning_rates, losses } = fixture;
  if (pictures.length < answer_ids.length || learning_rates.length < losses.length) {
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${stage}: expected a picture for each answer and a rate for each loss, found ${pictures.length} pictures for ` +
        `${answer_ids.length} answers and ${learning_rates.length} rates for ${losses.length} losses`,
    );
  }
  const batch = await Promise.all(
    answer_ids.map(async (answer, i): Promise<NativeTrainingSample> => {
      const { data, width, height } = pictures[i]!;
      return sampleOf(model, fixture.prompt_ids, await model.encodeFeatures(data, width, height), answer);
    }),
  );
  const lossless = type === 'f32' || type === 'f16';
  const allowed = lossless ? tolerance.gradient : undefined;
  const results: StageResult[] = [];
  const trainer = await model.openTrainer({ weightDecay: fixture.weight_decay });
  try {
    const { values: before } = await trainer.state();
    const found: number[] = [];
    for (const [i, rate] of learning_rates.slice(0, losses.length).entries()) {
      const { loss, targets } = await trainer.accumulate(batch);
      found.push(loss / targets);
      if (i === 0) results.push(...(await compareGradient(await trainer.gradient())));
      await trainer.apply({ rate });
    }
    results.push(result(`${stage}.losses`, 'relative', relativeError(found, losses), allowed));
    const { values } = await trainer.state();
    results.push(...(await compare('after6', values, tolerance.movedValues ? allowed : undefined)));
    results.push(await compareMovement(before, values));
  } finally {
    trainer.close();
  }
  return results;

  async function compare(what: string, values: ProjectionValues, limit?: number): Promise<StageResult[]> {
    const parts = [];
    for (const part of ['weight', 'bias'] as const) {
      const name = `${stage}.${what}.llama_proj.${part}`;
      parts.push(result(name, 'relative', relativeError(values[part], await floatsOf(tensors, name)), limit));
    }
    return parts;
  }

  async function compareGradient(sum: ProjectionValues & { targets: number }): Promise<StageResult[]> {
    const mean = (values: Float32Array) => values.map((value) => value / sum.targets);
    const results = await compare('grad', { weight: mean(sum.weight), bias: mean(sum.bias) }, allowed);
    const expected = await floatsOf(tensors, `${stage}.grad.llama_proj.weight`);
    const distance = worstCosineDistance(sum.weight, expected, expected.length);
    const limit = lossless ? tolerance.direction : gradientDistance[type];
    results.push(result(`${stage}.grad (direction)`, '1 - cosine', distance, limit));
    return results;
  }

  /** Where AdamW has moved the weight to, from where it began. */
  async function compareMovement(from: ProjectionValues, to: ProjectionValues): Promise<StageResult> {
    const moved = (values: Float32Array) => values.map((value, i) => value - from.weight[i]!);
    const expected = moved(await floatsOf(tensors, `${stage}.after6.llama_proj.weight`));
    const distance = worstCosineDistance(moved(to.weight), expected, expected.length);
    return result(`${stage}.after6 (direction)`, '1 - cosine', distance, lossless ? tolerance.movement : undefined);
  }
}

/** `<s>`, the prompt around the picture, the answer; each row of the answer is predicted by the one before. */
function sampleOf(
  model: NativeModel,
  prompt: TrainingFixture['prompt_ids'],
  features: Float32Array,
  answer: readonly number[],
): NativeTrainingSample {
  const { bos, imageTokens } = model.info();
  const [before, after] = prompt ?? [[], []];
  const all = [bos, ...before, ...new Array<number>(imageTokens).fill(-1), ...after, ...answer];
  const firstTarget = all.length - answer.length;
  return {
    ids: Int32Array.from(all.slice(0, -1)), // nothing is asked of the answer's last row
    targets: Int32Array.from(all.slice(1), (id, t) => (t + 1 >= firstTarget ? id : -1)),
    features,
  };
}

// The learning rate of every iteration, with the original's quirks.
import { MiniGptError } from '../errors.js';

export interface Schedule {
  init_lr: number;
  min_lr: number;
  warmup_lr: number;
  warmup_steps: number;
  max_epoch: number;
  iters_per_epoch: number;
}

/** `run.lr_sched` may be one of these. */
export const scheduleNames = ['linear_warmup_cosine_lr'] as const;

/**
 * `linear_warmup_cosine_lr` at an iteration, counted from 0: a line from warmup_lr to init_lr, then a cosine down to min_lr. As in the original
 * the line is climbed by the iteration within the epoch, so it is whole only where the first epoch is longer than it; and the cosine
 * is counted from the run's first iteration, so the rate jumps down where the line ends. Error: ERR_ARGUMENT (no iteration of the run).
 */
export function learningRate(schedule: Schedule, iteration: number): number {
  const { init_lr, min_lr, warmup_lr, warmup_steps, max_epoch, iters_per_epoch } = schedule;
  const total = max_epoch * iters_per_epoch;
  if (!Number.isInteger(iteration) || iteration < 0 || iteration >= total)
    throw new MiniGptError('ERR_ARGUMENT', `expected an iteration from 0 to ${total - 1}, found ${iteration}`);
  if (iteration < warmup_steps) {
    const climbed = (iteration % iters_per_epoch) / Math.max(warmup_steps, 1);
    return Math.min(init_lr, warmup_lr + (init_lr - warmup_lr) * climbed);
  }
  return min_lr + (init_lr - min_lr) * 0.5 * (1 + Math.cos((Math.PI * iteration) / total));
}

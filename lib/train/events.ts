// What a training run tells: of every step, of validations, and how it ends. The iterator of train() gives these; logs, the terminal, TensorBoard
// and the watch page are made from them.

/** One optimizer step. */
export interface StepEvent {
  kind: 'step';
  /** Steps done, this one included: 1, 2, …; of `steps` in all. */
  step: number;
  steps: number;
  epoch: number;
  /** Mean loss a target, natural logarithm, of the step's whole batch on all processes. */
  loss: number;
  /** Mean of the last 50 steps' losses. */
  runningLoss: number;
  /** Norm of the mean gradient before clipping. */
  gradientNorm: number;
  rate: number;
  pairs: number;
  tokens: number;
  targets: number;
  /** Pairs and rows (tokens and picture vectors) a second, over this step. */
  pairsPerSecond: number;
  tokensPerSecond: number;
  seconds: number;
  /** Share of the step's time spent waiting for data, 0 to 1. */
  waiting: number;
  /** Share spent on the vision side, 0 to 1. */
  vision: number;
  /** Seconds to the end at the pace of late. */
  eta: number;
  dataset: string;
  /** Samples passed over so far in this run. */
  skipped: number;
  /** Answers so far that max_txt_len cut, so that their end symbol was lost. */
  cut?: number;
}

/** A loss on pairs kept from training, and answers to the run's fixed pictures. */
export interface ValidationEvent {
  kind: 'validation';
  step: number;
  /** Mean loss a target; undefined where no pairs are kept back. */
  loss?: number;
  best: boolean;
  answers: { picture: string; prompt: string; text: string }[];
}

export interface CheckpointEvent {
  kind: 'checkpoint';
  step: number;
  path: string;
}

/** A sample that could not be used. */
export interface SkipEvent {
  kind: 'skip';
  step: number;
  dataset: string;
  name: string;
  reason: string;
}

export type TrainEvent = StepEvent | ValidationEvent | CheckpointEvent | SkipEvent;

/** What a run is, told once before its first step. */
export interface RunFacts {
  jobName: string;
  folder: string;
  device: string;
  model: string;
  steps: number;
  startStep: number;
  datasets: { name: string; pairs?: number }[];
  config: unknown;
}

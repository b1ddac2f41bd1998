// The public names, nothing else.
export { Chat, type ChatTurn } from './chat.js';
export type { FinishReason, MemoryHolding } from './addon.js';
export {
  align as alignPictures,
  type AlignOptions,
  type AlignResult,
  type AlignSummary,
  type RefinerOptions,
} from './data/align.js';
export { build as buildShards, type BuildOptions, type BuildResult } from './data/make-shards.js';
export { doctor as checkData, type DoctorOptions, type DoctorReport } from './data/doctor.js';
export { MiniGptError, type ErrorCode } from './errors.js';
export { exportProjection, type ExportFormat, type ExportOptions, type ExportResult } from './export.js';
export type { Picture, RawPicture } from './image.js';
export { MiniGPT4, defaultPrompt, embeddedModelPath, type ModelInfo } from './model.js';
export type {
  ChatOptions,
  CpuLevel,
  DescribeOptions,
  Device,
  GenerateOptions,
  KvType,
  LoadOptions,
} from './options.js';
export { templateNames, type TemplateName } from './prompt.js';
export { Run, type Answer } from './run.js';
export type { CheckpointEvent, RunFacts, SkipEvent, StepEvent, TrainEvent, ValidationEvent } from './train/events.js';
export type { ProcessGroup } from './train/group.js';
export { openLog as openRunLog, type RunLog } from './train/log.js';
export { joinGroup, type JoinOptions } from './train/processes.js';
export { TrainRun, train, type TrainFacts, type TrainOptions } from './train/train.js';
export type { TrainSections } from './train/config.js';
export { watch as watchRun, type Watch, type WatchOptions } from './train/watch/watch.js';

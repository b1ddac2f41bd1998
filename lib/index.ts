// The public names, nothing else.
export { Chat, type ChatTurn } from './chat.js';
export type { FinishReason, MemoryHolding } from './addon.js';
export { MiniGptError, type ErrorCode } from './errors.js';
export type { Picture, RawPicture } from './image.js';
export { MiniGPT4, defaultPrompt, embeddedModelPath, type ModelInfo } from './model.js';
export type { ChatOptions, CpuLevel, DescribeOptions, Device, GenerateOptions, LoadOptions } from './options.js';
export { templateNames, type TemplateName } from './prompt.js';
export { Run, type Answer } from './run.js';

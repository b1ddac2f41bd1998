// The public names, nothing else.
export { Chat, type ChatTurn } from './chat.js';
export { MiniGptError, type ErrorCode } from './errors.js';
export type { Picture, RawPicture } from './image.js';
export { MiniGPT4, defaultPrompt, embeddedModelPath, type ModelInfo } from './model.js';
export type { ChatOptions, DescribeOptions, GenerateOptions, LoadOptions } from './options.js';
export { templateNames, type TemplateName } from './prompt.js';
export { Run, type Answer } from './run.js';

// Metadata entries of the model file.
import type { GgufKey } from '../addon.js';

export const u32 = (key: string, value: number): GgufKey => ({ key, type: 'u32', value });
export const f32 = (key: string, value: number): GgufKey => ({ key, type: 'f32', value });
export const bool = (key: string, value: boolean): GgufKey => ({ key, type: 'bool', value });
export const text = (key: string, value: string): GgufKey => ({ key, type: 'string', value });
export const f32s = (key: string, value: number[]): GgufKey => ({ key, type: 'array', elementType: 'f32', value });
export const i32s = (key: string, value: number[]): GgufKey => ({ key, type: 'array', elementType: 'i32', value });
export const texts = (key: string, value: string[]): GgufKey => ({ key, type: 'array', elementType: 'string', value });

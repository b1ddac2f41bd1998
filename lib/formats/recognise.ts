// Tells by tensor names which part of MiniGPT-4 a checkpoint holds, in the original's naming or in Hugging Face's.
import type { Checkpoint } from './tensor.js';

export type Part = 'vit' | 'qformer' | 'projection' | 'llm';

/** A tensor that each part has, by naming. */
const SIGNS: readonly (readonly [Part, string])[] = [
  ['vit', 'patch_embed.proj.weight'],
  ['vit', 'visual_encoder.patch_embed.proj.weight'],
  ['vit', 'vision_model.embeddings.patch_embedding.weight'],
  ['qformer', 'Qformer.bert.embeddings.LayerNorm.weight'],
  ['qformer', 'qformer.layernorm.weight'],
  ['projection', 'llama_proj.weight'],
  ['llm', 'model.embed_tokens.weight'],
];

const DESCRIPTIONS: Readonly<Record<Part, string>> = {
  vit: 'a ViT',
  qformer: 'a Q-Former',
  projection: 'a projection',
  llm: 'a language model',
};

export function partsOf(checkpoint: Checkpoint): Part[] {
  return [...new Set(SIGNS.filter(([, name]) => checkpoint.tensors.has(name)).map(([part]) => part))];
}

/** `a ViT`, `a ViT and a Q-Former`, or the names of its first tensors where it is none of ours. */
export function describeParts(checkpoint: Checkpoint): string {
  const parts = partsOf(checkpoint).map((part) => DESCRIPTIONS[part]);
  if (parts.length) return parts.join(' and ');
  const names = [...checkpoint.tensors.keys()];
  return `tensors such as ${names.slice(0, 3).join(', ')}`;
}

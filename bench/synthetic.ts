// Writes model files of real sizes with random weights, for programs that are to be measured.
//
//   node --import tsx bench/synthetic.ts llm 7b q4_0 vicuna-7b-q4_0.gguf
//   node --import tsx bench/synthetic.ts vision vit-g f16 vision.gguf
import type { TypeName } from '../lib/addon.js';
import { LLMS, writeLlm, writeVision, type FileType } from '../lib/bench/synthetic.js';

const [kind, size, type, path] = process.argv.slice(2);
if (!path || !type || (kind !== 'llm' && kind !== 'vision')) {
  console.error(
    `usage: synthetic.ts llm ${Object.keys(LLMS).join('|')} TYPE OUT.gguf\n       synthetic.ts vision vit-g TYPE OUT.gguf`,
  );
  process.exit(2);
}
if (kind === 'llm') await writeLlm(size!, type as FileType, path);
else await writeVision(type as TypeName, path);
console.log(`${path} written`);

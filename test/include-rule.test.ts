// Who may include whom, as native/README.md draws it, and who alone may load the binary.
import { readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { read, root } from './checkout.js';

/** What each folder of native/ may include: folders, or single files where only the interface is for others. */
const allowed: Record<string, string[]> = {
  core: ['core'],
  ops: ['core', 'ops'],
  'ops/cpu': ['core', 'ops', 'ops/cpu'],
  'ops/cuda': ['core', 'ops', 'ops/cuda'],
  simt: ['core', 'simt'],
  text: ['core', 'text'],
  image: ['core', 'image'],
  models: ['core', 'ops/ops.h', 'models'],
  engine: ['core', 'ops/ops.h', 'text', 'models', 'engine'],
  train: ['core', 'ops/ops.h', 'models', 'train'],
  collective: ['core', 'collective'],
  addon: ['core', 'ops/ops.h', 'text', 'image', 'models', 'engine', 'train', 'collective', 'addon'],
};

/** Headers of Node's native interface: the addon's alone. */
const nodeHeaders = /^(napi(-inl)?|node_api|node_api_types|js_native_api|js_native_api_types|node|uv|v8)\.h$/;

/** The key of `allowed` that a path from native/ belongs to: the longest one. */
function layerOf(path: string): string | undefined {
  return Object.keys(allowed)
    .filter((layer) => path.startsWith(`${layer}/`))
    .sort((a, b) => b.length - a.length)[0];
}

/** What is wrong with the includes of one file, one sentence each; `path` is from native/. */
function violations(path: string, source: string): string[] {
  const layer = layerOf(path);
  if (layer === undefined) return [`${path}: its folder has no place in the include rule`];
  const found: string[] = [];
  for (const [, bracket, name] of source.matchAll(/^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]/gm)) {
    if (layer !== 'addon' && nodeHeaders.test(name!)) found.push(`${path} includes ${name}: only addon knows Node`);
    if (bracket === '<') continue;
    if (path === 'ops/cuda/gpu.h' && name === 'simt/gpu_simt.h') continue; // it alone knows both compilers
    const target = normalize(name!) === name ? layerOf(name) : undefined;
    if (target === undefined) {
      if (!nodeHeaders.test(name!)) found.push(`${path} includes "${name}": paths begin at native/`);
    } else if (!allowed[layer]!.some((entry) => entry === name || entry === target)) {
      found.push(`${path} includes "${name}": ${layer} may include ${allowed[layer]!.join(', ')}`);
    }
  }
  return found;
}

/** Paths of the files below a folder of the checkout, from that folder. */
function filesBelow(folder: string, pattern: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).filter((path) => pattern.test(path));
}

const rule = suite('include rule');

rule('every file of native/ includes only what its layer may', () => {
  const files = filesBelow('native', /\.(cpp|h|inc|cu)$/);
  assert.ok(files.length > 20, `only ${files.length} files found`);
  assert.equal(
    files.flatMap((path) => violations(path, read(join('native', path)))),
    [],
  );
});

rule('the test sees what it forbids', () => {
  const refused = (path: string, line: string) => violations(path, `#pragma once\n${line}\n`).length;
  assert.is(refused('core/gguf.h', '#include "models/config.h"'), 1);
  assert.is(refused('models/llama.cpp', '#include "train/loss.h"'), 1);
  assert.is(refused('models/llama.cpp', '#include "text/tokenizer.h"'), 1);
  assert.is(refused('models/llama.cpp', '#include "ops/cpu/matmul.h"'), 1);
  assert.is(refused('engine/engine.cpp', '#  include "ops/cpu/levels/avx2.h"'), 1);
  assert.is(refused('ops/backend.cpp', '#include "ops/cpu/cpu.h"'), 1);
  assert.is(refused('engine/engine.cpp', '#include <napi.h>'), 1);
  assert.is(refused('text/bpe.cpp', '#include "../core/error.h"'), 1);
  assert.is(refused('text/bpe.cpp', '#include "bpe.h"'), 1);
  assert.is(refused('helpers/all.cpp', ''), 1);
  assert.is(refused('ops/cuda/norm.cu', '#include "simt/context.h"'), 1);
  assert.is(refused('simt/launch.cpp', '#include "ops/cuda/gpu.h"'), 1);
  assert.is(refused('addon/model.cpp', '#include "engine/engine.h"\n#include <napi.h>'), 0);
  assert.is(refused('models/llama.cpp', '#include "ops/ops.h"\n#include "models/config.h"\n#include <vector>'), 0);
  assert.is(refused('ops/cpu/levels/avx2.cpp', '#include "ops/cpu/kernels.h"'), 0);
});

rule('native/README.md names every folder of native/', () => {
  const text = read('native/README.md');
  const folders = readdirSync(join(root, 'native'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const missing = folders.map((entry) => entry.name).filter((name) => !text.includes(`\`${name}/\``));
  assert.equal(missing, []);
});

rule('only lib/addon.ts loads a native binary', () => {
  const loads = /node-gyp-build|\bdlopen\b|\.node['"`]/;
  const files = filesBelow('lib', /\.ts$/);
  assert.ok(files.includes('addon.ts'));
  assert.equal(
    files.filter((path) => loads.test(read(join('lib', path)))),
    ['addon.ts'],
  );
});

rule('lib/ imports nothing from outside of itself', () => {
  const found = filesBelow('lib', /\.ts$/).flatMap((path) =>
    [...read(join('lib', path)).matchAll(/from\s+'(\.[^']*)'/g)]
      .map((match) => normalize(join(dirname(path), match[1]!)))
      .filter((target) => target.startsWith('..'))
      .map((target) => `${path} imports ${target}`),
  );
  assert.equal(found, []);
});

rule.run();

// Compiles every kernel for the architectures given (80 and 90 without any; `release`: all that a release has) and compares registers and
// shared memory of each with the table native/ops/cuda/kernels.json. Spills and local memory are errors of the compiler's.
//   node scripts/kernels.mjs [ARCHITECTURE... | release] [--write]
// Where cuobjdump and nvdisasm are there (CUOBJDUMP: another), gpu/conformance/waits.mjs looks at the machine code, too.
// --write: puts what was found into the table. A compiler of another version than the table's may count otherwise: then only spills and
// the limits of a kernel's launch bounds are checked, and that is said.
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root, run } from './commands.mjs';

const folder = join(root, 'native', 'ops', 'cuda');
const table = join(folder, 'kernels.json');
const release = ['80', '86', '89', '90', '120'];

const { values, positionals } = parseArgs({
  options: { write: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const architectures = positionals.length === 0 ? ['80', '90'] : positionals[0] === 'release' ? release : positionals;

const nvcc = process.env.CUDACXX ?? 'nvcc';
const version = (await run(nvcc, ['--version'])).output.match(/release [\d.]+, V([\d.]+)/)?.[1];
if (!version) {
  console.log('nvcc was not found');
  process.exit(77);
}

/** Without what the compiler mangles into it: "void minigpt4::cuda::rms_norm_kernel<4>(…)" becomes "rms_norm_kernel<4>". */
async function readable(names) {
  const { output } = await run('c++filt', names);
  const lines = output.trimEnd().split('\n');
  return new Map(
    names.map((name, i) => [
      name,
      (lines[i] ?? name)
        .replace(/^void /, '')
        .replaceAll('minigpt4::', '')
        .replaceAll('cuda::', '')
        .replaceAll('(anonymous namespace)::', '')
        .replace(/\((?:\w+)\)(?=-?\d)/g, '') // of an enumerator's number: "(Type)2"
        .replace(/\(.*\)$/, ''),
    ]),
  );
}

/** What ptxas says of one source: [{ kernel, architecture, registers, shared }]. */
async function compile(source, objects) {
  const { code, output } = await run(
    nvcc,
    [
      ...['-std=c++20', '-O3', '-fmad=false', '--expt-relaxed-constexpr', `-I${join(root, 'native')}`],
      ...[
        '-Xcompiler',
        '-fPIC',
        '-Xptxas',
        '-v,--warn-on-spills,--warn-on-local-memory-usage',
        '-Werror',
        'all-warnings',
      ],
      ...architectures.flatMap((one) => ['-gencode', `arch=compute_${one},code=sm_${one}`]),
      ...['-c', join(folder, source), '-o', join(objects, `${source}.o`)],
    ],
    { minutes: 20 },
  );
  if (code !== 0) return { source, failed: output };
  const kernels = [];
  let entry;
  for (const line of output.split('\n')) {
    const begin = /Compiling entry function '(\w+)' for 'sm_(\w+)'/.exec(line);
    if (begin) entry = { name: begin[1], architecture: begin[2] };
    const used = /Used (\d+) registers(?:.*?(\d+) bytes smem)?/.exec(line);
    if (used && entry) kernels.push({ ...entry, registers: Number(used[1]), shared: Number(used[2] ?? 0) });
  }
  return { source, kernels };
}

const objects = mkdtempSync(join(tmpdir(), 'minigpt4-kernels-'));
const sources = readdirSync(folder).filter((name) => name.endsWith('.cu'));
const found = {};
let failures = 0;
try {
  const queue = [...sources];
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      const { failed, kernels } = await compile(source, objects);
      if (failed !== undefined) {
        failures++;
        console.log(`${source}:\n${failed.replaceAll(`${root}/`, '')}`);
        continue;
      }
      const names = await readable(kernels.map(({ name }) => name));
      for (const { name, architecture, registers, shared } of kernels) {
        const key = `${source}: ${names.get(name)}`;
        (found[key] ??= {})[`sm_${architecture}`] = [registers, shared];
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const files = readdirSync(objects).map((name) => join(objects, name));
  if (!architectures.some((one) => Number(one) >= 90)) {
    // nothing waits
  } else if ((await run(process.env.CUOBJDUMP ?? 'cuobjdump', ['--version'])).code !== 0) {
    console.log('cuobjdump was not found: where kernels wait for the launch before is not looked at');
  } else if (failures === 0) {
    const { code, output } = await run(process.execPath, [join('gpu', 'conformance', 'waits.mjs'), ...files]);
    console.log(output.trimEnd());
    if (code !== 0) failures++;
  }
} finally {
  rmSync(objects, { recursive: true, force: true });
}
const count = Object.keys(found).length;
if (failures === 0 && values.write) {
  const sorted = Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)));
  const what = 'registers and bytes of static shared memory of every kernel; scripts/kernels.mjs --write';
  const { format } = await import('prettier');
  const text = JSON.stringify({ what, nvcc: version, kernels: sorted });
  writeFileSync(table, await format(text, { parser: 'json', printWidth: 120 }));
}
const expected = JSON.parse(readFileSync(table, 'utf8'));
if (expected.nvcc !== version) {
  console.log(`the table is of nvcc ${expected.nvcc}, this is ${version}: registers are not compared`);
} else if (failures === 0) {
  for (const [key, architecturesOf] of Object.entries(found)) {
    for (const [architecture, numbers] of Object.entries(architecturesOf)) {
      const wanted = expected.kernels[key]?.[architecture];
      if (JSON.stringify(wanted) === JSON.stringify(numbers)) continue;
      failures++;
      console.log(
        `${key}, ${architecture}: expected [registers, shared] ${JSON.stringify(wanted ?? 'in the table')}, found ${JSON.stringify(numbers)}`,
      );
    }
  }
  for (const key of Object.keys(expected.kernels)) {
    if (found[key]) continue;
    failures++;
    console.log(`${key}: in the table, but no such kernel was compiled`);
  }
}
console.log(
  `${count} kernels of ${sources.length} files for ${architectures.map((one) => `sm_${one}`).join(', ')}: ${failures} failures`,
);
process.exitCode = failures === 0 && count > 0 ? 0 : 1;

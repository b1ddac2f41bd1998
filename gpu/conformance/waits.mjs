// Do the kernels of a built plug-in wait for the launch before (gpu::wait_for_previous) as early as their source says? A compiler
// may move a load up across the wait: then two launches that overlap would race, and no test on a CPU could show it.
//
//   node gpu/conformance/waits.mjs FILE...   plug-ins or object files; needs cuobjdump and nvdisasm of the CUDA toolkit (CUOBJDUMP: another)
//
// Of every kernel that waits, for every architecture in the file: before the wait there is no access to global memory, no way out
// and no branch; and what is read past the texture path's contract (.CONSTANT: nobody writes it during the launch) is told by number,
// since what a launch waits for is written during it: weights alone may be read so.
import { execFileSync } from 'node:child_process';

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error('usage: node gpu/conformance/waits.mjs FILE...');
  process.exit(2);
}

const memory = /^(LDG|STG|LDGSTS|LD|ST|ATOM|ATOMG|RED|REDG|LDL|STL|UBLKCP|UTMALDG|CCTL)(\.|$)/;
const leaves = /^(EXIT|BRA|BRX|JMP|JMX|CALL|RET)(\.|$)/;

/** What is wrong with the instructions of a kernel; undefined for one that does not wait. */
function early(instructions) {
  const wait = instructions.findIndex((name) => name.startsWith('ACQBULK'));
  if (wait < 0) return undefined;
  const before = instructions.slice(0, wait).filter((name) => memory.test(name) || leaves.test(name));
  return before.length === 0 ? '' : `${before.join(', ')} before the wait`;
}

let waiting = 0;
let failed = 0;
const constant = new Map();
for (const file of files) {
  const text = execFileSync(process.env.CUOBJDUMP ?? 'cuobjdump', ['-sass', file], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  let architecture = '';
  for (const part of text.split(/^(?=\s*(?:arch = |Function : ))/m)) {
    architecture = /arch = (\w+)/.exec(part)?.[1] ?? architecture;
    const name = /Function : (\w+)/.exec(part)?.[1];
    if (!name) continue;
    const instructions = [...part.matchAll(/\/\*[0-9a-f]{4,}\*\/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)/g)].map(
      ([, instruction]) => instruction,
    );
    const wrong = early(instructions);
    if (wrong === undefined) continue;
    waiting++;
    if (instructions.some((instruction) => instruction.includes('.CONSTANT')))
      constant.set(architecture, [...(constant.get(architecture) ?? []), name]);
    if (!wrong) continue;
    failed++;
    console.log(`FAIL ${file}, ${architecture}, ${name}: ${wrong}`);
  }
}
for (const [architecture, names] of constant)
  console.log(
    `${architecture}: ${names.length} kernels read memory that must not be written meanwhile: ${names.join(' ')}`,
  );
console.log(`${waiting} kernels wait, ${failed} of them too late`);
process.exitCode = failed === 0 && waiting > 0 ? 0 : 1;

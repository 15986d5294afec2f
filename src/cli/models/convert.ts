import { Command, Option } from 'commander';
import { type ConversionProgress, convertToGguf, defaultGgufCache } from '../../enhancer/qwen/convert.js';
import { type GgufFileType, ggufTypes } from '../../enhancer/qwen/gguf-file-types.js';
import { formatBytes } from '../../std/format-bytes.js';
import { prepareFile } from '../output/output-path.js';
import { say } from '../output/say.js';

/** `convert` writes the file that Enhance would write on first use. */
export function createConvertCommand(): Command {
  return new Command('convert')
    .description('convert a Qwen2 or Qwen2.5 safetensors folder to a GGUF file')
    .argument('<folder>', 'as transformers saves a model: config.json, safetensors, tokenizer')
    .addOption(new Option('--type <type>', 'storage type of the matrices').choices(ggufTypes).default('q8_0'))
    .option('--out <file>', `the file to write; omitted, one in ${defaultGgufCache()} that is used again`)
    .action(async (folder: string, { type, out }: { type: GgufFileType; out?: string }) => {
      if (out !== undefined) await prepareFile('--out', out);
      const ends = new AbortController();
      const end = () => ends.abort();
      process.once('SIGINT', end);
      process.once('SIGTERM', end);
      try {
        const { path, bytes, isReused } = await convertToGguf(folder, {
          type,
          signal: ends.signal,
          onProgress: progressLine(process.stderr),
          ...(out !== undefined && { out }),
        });
        say(`${isReused ? 'already there:' : 'wrote'} ${path} (${formatBytes(bytes, 2)})`);
      } finally {
        process.off('SIGINT', end);
        process.off('SIGTERM', end);
      }
    });
}

/** Shows progress: one line that changes on a terminal, a line per 10 % elsewhere. */
function progressLine(out: NodeJS.WriteStream): (progress: ConversionProgress) => void {
  const step = out.isTTY ? 1 : 10;
  let shown = -1;
  return ({ bytesDone, bytesTotal }) => {
    const percent = Math.floor((100 * bytesDone) / bytesTotal / step) * step;
    if (percent === shown) return;
    shown = percent;
    const text = `${percent}%  ${(bytesDone / 1e9).toFixed(2)} of ${formatBytes(bytesTotal, 2)}`;
    out.write(out.isTTY ? `\r\x1b[2K${text}${percent === 100 ? '\n' : ''}` : `${text}\n`);
  };
}

import { escapeUTF8 } from 'entities';

/** A file of the demo on its contact sheet. */
export interface SheetEntry {
  /** Entries of one group follow each other under this heading. */
  readonly group: string;
  /** Path relative to the sheet, with "/" between its parts. */
  readonly file: string;
  readonly prompt: string;
  /** Name and value of each parameter, in order. */
  readonly parameters: readonly (readonly [name: string, value: string | number])[];
  /** Time on the server, in seconds. */
  readonly seconds: number;
}

const STYLE = `
  :root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
  body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
  section { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.5rem; }
  figure { margin: 0; }
  img, video { width: 100%; border-radius: 0.25rem; }
  figcaption { font-size: 0.875rem; overflow-wrap: anywhere; }
  small { opacity: 0.75; }
`;

/**
 * An HTML page with every file of the demo, its prompt, parameters and time. It has no script and loads nothing but the files
 * beside it, so that it opens from a folder.
 */
export function contactSheet(title: string, remark: string, entries: readonly SheetEntry[]): string {
  const groups = [...new Set(entries.map(({ group }) => group))];
  const sections = groups.map((group) => {
    const figures = entries.filter((entry) => entry.group === group).map(figure);
    return `<h2>${escapeUTF8(group)}</h2>\n<section>\n${figures.join('\n')}\n</section>`;
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeUTF8(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeUTF8(title)}</h1>
<p>${escapeUTF8(remark)}</p>
${sections.join('\n')}
</body>
</html>
`;
}

function figure({ file, prompt, parameters, seconds }: SheetEntry): string {
  const url = escapeUTF8(file.split('/').map(encodeURIComponent).join('/'));
  const view = /\.mp4$/.test(file)
    ? `<video src="${url}" controls loop muted></video>`
    : `<a href="${url}"><img src="${url}" alt="${escapeUTF8(prompt)}"></a>`;
  const facts = [...parameters.map(([name, value]) => `${name} ${value}`), `${seconds.toFixed(1)} s`, file];
  return `<figure>
${view}
<figcaption>${escapeUTF8(prompt)}<br><small>${facts.map(escapeUTF8).join(' · ')}</small></figcaption>
</figure>`;
}

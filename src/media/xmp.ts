import { type GenerationParameters, promptsText } from './image-metadata.js';

/** IPTC's term for media that a model made. https://cv.iptc.org/newscodes/digitalsourcetype/ */
const TRAINED_ALGORITHMIC_MEDIA = 'http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia';

/**
 * Largest length of a prompt in XMP, in UTF-16 units. A JPEG holds 65,502 bytes of XMP, and libvips silently drops a larger packet. Two
 * prompts of this length take at most 60,000 bytes, because no unit takes more than the five bytes of `&amp;`.
 */
const MAX_PROMPT_UNITS = 6000;

/**
 * An XMP packet that marks an image as made by a model. With parameters, it also has the prompt and the system, in the properties of IPTC
 * Photo Metadata 2025.1. https://iptc.org/std/photometadata/specification/IPTC-PhotoMetadata
 */
export function xmpPacket(parameters?: GenerationParameters): string {
  const properties = [['DigitalSourceType', TRAINED_ALGORITHMIC_MEDIA]];
  if (parameters !== undefined) {
    properties.push(
      ['AISystemUsed', `darkroom (model ${parameters.model})`],
      ['AISystemVersionUsed', parameters.version],
      ['AIPromptInformation', promptsText(parameters, MAX_PROMPT_UNITS)],
    );
  }
  return [
    '<?xpacket begin="\u{feff}" id="W5M0MpCehiHzreSzNTczkc9d"?>',
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">',
    ...properties.map(([name, value = '']) => `<Iptc4xmpExt:${name}>${escaped(value)}</Iptc4xmpExt:${name}>`),
    '</rdf:Description>',
    '</rdf:RDF>',
    '</x:xmpmeta>',
    '<?xpacket end="r"?>',
  ].join('\n');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

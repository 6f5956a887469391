// Fetches a picture with the map that was saved, or that it has already in its dataset.

export async function load(api, number, picture) {
  const found = await api.state(number);
  const [width, height] = found.size;
  picture.src = api.image(number, found.sha256);
  await picture.decode();
  // A map that is drawn on another number of pixels would not fit the file.
  if (picture.naturalWidth !== width || picture.naturalHeight !== height) {
    throw new Error(`the browser shows ${picture.naturalWidth}x${picture.naturalHeight} pixels of ${width}x${height}`);
  }
  const { record } = found;
  let values = null;
  // Of a picture that has another size by now, no map is left that would fit.
  const fits = record?.size.every((side, place) => side === found.size[place]);
  if (record?.marked && fits) values = await api.drawn(number, record.revision, width * height);
  else if (!record && found.existing) values = await api.start(number, "existing", width * height);
  return { found, values };
}

/* The counting functions that PostgreSQL calls for the masks bench: pixels of a box, and of a box in two masks.
 *
 * A mask is a bytea of width * height bytes, stored uncompressed out of line, so that only the rows of the box are
 * fetched. Compiled by postgres_scan.py where the server's headers are installed.
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

static const unsigned char *
box_rows(Datum mask, int32 width, int32 y0, int32 y1, size_t *available)
{
	struct varlena *rows = PG_DETOAST_DATUM_SLICE(mask, y0 * width, (y1 - y0) * width);

	*available = VARSIZE_ANY_EXHDR(rows);
	return (const unsigned char *) VARDATA_ANY(rows);
}

static void
require(bool holds)
{
	if (!holds)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the box must lie inside the mask")));
}

PG_FUNCTION_INFO_V1(count_pixels);

/* count_pixels(mask, width, x0, y0, x1, y1, low): pixels >= low with x0 <= x < x1, y0 <= y < y1 */
Datum
count_pixels(PG_FUNCTION_ARGS)
{
	int32		width = PG_GETARG_INT32(1);
	int32		x0 = PG_GETARG_INT32(2), y0 = PG_GETARG_INT32(3);
	int32		x1 = PG_GETARG_INT32(4), y1 = PG_GETARG_INT32(5);
	unsigned char low = (unsigned char) PG_GETARG_INT32(6);
	size_t		available;
	const unsigned char *rows;
	int32		total = 0;

	require(0 <= x0 && x0 <= x1 && x1 <= width && 0 <= y0 && y0 <= y1);
	rows = box_rows(PG_GETARG_DATUM(0), width, y0, y1, &available);
	require(available == (size_t) (y1 - y0) * width);
	for (int32 y = 0; y < y1 - y0; y++)
	{
		const unsigned char *row = rows + (size_t) y * width;
		int32		found = 0;

		for (int32 x = x0; x < x1; x++)
			found += row[x] >= low;
		total += found;
	}
	PG_RETURN_INT32(total);
}

PG_FUNCTION_INFO_V1(count_both);

/* count_both(mask, other, width, x0, y0, x1, y1, low): pixels that are >= low in both masks */
Datum
count_both(PG_FUNCTION_ARGS)
{
	int32		width = PG_GETARG_INT32(2);
	int32		x0 = PG_GETARG_INT32(3), y0 = PG_GETARG_INT32(4);
	int32		x1 = PG_GETARG_INT32(5), y1 = PG_GETARG_INT32(6);
	unsigned char low = (unsigned char) PG_GETARG_INT32(7);
	size_t		available,
				available_other;
	const unsigned char *rows,
			   *others;
	int32		total = 0;

	require(0 <= x0 && x0 <= x1 && x1 <= width && 0 <= y0 && y0 <= y1);
	rows = box_rows(PG_GETARG_DATUM(0), width, y0, y1, &available);
	others = box_rows(PG_GETARG_DATUM(1), width, y0, y1, &available_other);
	require(available == (size_t) (y1 - y0) * width && available_other == available);
	for (int32 y = 0; y < y1 - y0; y++)
	{
		const unsigned char *row = rows + (size_t) y * width;
		const unsigned char *other = others + (size_t) y * width;
		int32		found = 0;

		for (int32 x = x0; x < x1; x++)
			found += (row[x] >= low) & (other[x] >= low);
		total += found;
	}
	PG_RETURN_INT32(total);
}
